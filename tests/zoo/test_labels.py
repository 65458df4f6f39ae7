"""Class labels: how many, in which order."""

import pytest

from dlzoo.zoo.catalog import list_models
from dlzoo.zoo.data.labels import load_labels


def test_imagenet_names_in_wordnet_order() -> None:
    labels = load_labels("imagenet1k")
    assert len(labels) == len(set(labels)) == 1000
    # Spread over the list: a missing or doubled line would move what comes after it.
    assert labels[0] == "tench"
    assert labels[134] == "crane bird"
    assert labels[285] == "Egyptian cat"
    assert labels[517] == "crane"
    assert labels[967] == "espresso"
    assert labels[999] == "toilet tissue"
    assert all(label == label.strip() and label for label in labels)


def test_digits() -> None:
    assert load_labels("mnist") == tuple("0123456789")


def test_cifar_10() -> None:
    labels = load_labels("cifar10")
    assert len(labels) == len(set(labels)) == 10
    assert (labels[0], labels[3], labels[9]) == ("airplane", "cat", "truck")


def test_every_card_has_a_label_for_each_class() -> None:
    cards = [card for card in list_models() if card.labels]
    assert cards
    for card in cards:
        assert card.labels is not None
        assert len(load_labels(card.labels)) == card.num_classes, card.name


def test_unknown_set() -> None:
    with pytest.raises(LookupError, match="no label set is named 'imagenet22k'"):
        load_labels("imagenet22k")
