"""The validation images: every class in proportion, the same ones from the same seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlzoo.errors import ArgumentError, DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.array_dataset import ArrayDataset
from dlzoo.zoo.data.split import split
from tests.support.data_files import noise

DOT = Geometry(color="L", resize_size=1, crop_size=(1, 1))


def data_of(targets: torch.Tensor, num_classes: int) -> ArrayDataset:
    """The k-th image's only pixel is k modulo 256."""
    return ArrayDataset(
        np.arange(len(targets)).astype(np.uint8).reshape(-1, 1, 1, 1),
        targets,
        name="dots",
        split="train",
        class_names=[f"class {c}" for c in range(num_classes)],
        geometry=DOT,
        facts={"kind": "dots"},
    )


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**40),
)
def test_every_class_gives_its_share(sizes: list[int], fraction: float, seed: int) -> None:
    labels = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    whole = data_of(labels[torch.randperm(len(labels))], len(sizes))
    try:
        train, validation = split(whole, fraction, seed)
    except DataError:
        assert sum(min(round(size * fraction), max(size - 1, 0)) for size in sizes) <= len(
            sizes
        )
        return
    assert len(train) + len(validation) == len(whole)
    seen = torch.cat([train.read(range(len(train))), validation.read(range(len(validation)))])
    assert sorted(seen.flatten().tolist()) == sorted(k % 256 for k in range(len(whole)))
    held_back = Counter(validation.targets.tolist())
    for label, size in enumerate(sizes):
        assert abs(held_back[label] - size * fraction) <= 1
        assert held_back[label] < size or not size
    again = split(whole, fraction, seed)[1]
    assert torch.equal(again.read(range(len(again))), validation.read(range(len(validation))))


def test_facts_say_which_part() -> None:
    whole = data_of(torch.arange(100) % 4, 4)
    train, validation = split(whole, 0.1, 7)
    assert (len(train), len(validation)) == (90, 10)
    assert validation.split == "validation"
    assert validation.facts == {
        "name": "dots",
        "split": "validation",
        "num_images": 10,
        "num_classes": 4,
        "kind": "dots",
        "image_size": [1, 1],
        "share": "0.1 of train held back with seed 7",
    }
    assert train.facts["share"] == "all but 0.1 of train held back with seed 7"
    other = split(whole, 0.1, 8)[1]
    assert not torch.equal(other.read(range(10)), validation.read(range(10)))


def test_several_labels() -> None:
    targets = torch.from_numpy(noise(50, 3) % 2).float()
    train, validation = split(data_of(targets, 3), 0.2, 0)
    assert (len(train), len(validation)) == (40, 10)
    assert validation.targets.shape == (10, 3)
    seen = validation.read(range(10)).flatten().long()
    assert torch.equal(targets[seen], validation.targets)


def test_refusals() -> None:
    whole = data_of(torch.tensor([0, 0, 1]), 2)
    with pytest.raises(ArgumentError, match=r"^`fraction` got 1\.0, expected 0 < fraction"):
        split(whole, 1.0, 0)
    with pytest.raises(DataError) as caught:
        split(whole, 0.1, 0)
    assert str(caught.value) == (
        "dots has 3 images: 0.1 of them is less than one image for validation. Use a "
        "larger share, or none."
    )
