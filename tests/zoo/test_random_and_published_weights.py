"""Weights drawn from a seed, or published and fetched once."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from dlzoo.errors import CheckpointMismatchError, DownloadError, WeightsError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.registry import Card, PublishedWeights
from dlzoo.zoo.state_dict import sha256_of_state_dict
from dlzoo.zoo.weights import WeightsOrigin, build_with_weights
from tests.support.weight_files import (
    LENET,
    assert_equal,
    error_of,
    save,
    small,
    state_dict_of,
)

if TYPE_CHECKING:
    from tests.zoo.conftest import FileServer

pytestmark = pytest.mark.usefixtures("one_thread", "empty_cache")


# -- random --------------------------------------------------------------------------------------


def test_random_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    model = build_with_weights(LENET, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not model.module.training
    assert model.card is LENET
    assert model.preprocessing == LENET.preprocessing
    state_dict = model.module.state_dict()
    assert model.origin == WeightsOrigin(
        "random", 7, None, sha256_of_state_dict(state_dict), None, None
    )
    torch.manual_seed(2)
    assert_equal(state_dict, state_dict_of(seed=7))
    other = state_dict_of(seed=8)
    assert all(not torch.equal(value, other[key]) for key, value in state_dict.items())


def test_random_weights_are_these_on_every_machine() -> None:
    # A change of this digest changes every untrained bundle: it belongs into the changelog.
    origin = build_with_weights(LENET, weights="random", seed=0).origin
    assert origin.sha256 == "0a60c907be7f791f6b0184ffbe7c4ada39ae9162fe0b38a7cdf0bd4a3d100a0f"


def test_arguments_reach_the_builder() -> None:
    module = build_with_weights(LENET, weights="random", num_classes=3).module
    assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


# -- published -----------------------------------------------------------------------------------


def publish(
    server: FileServer, card: Card, state_dict: dict[str, Tensor], **facts: Any
) -> Card:
    """The card, with these weights to be had from the server."""
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    server.content = buffer.getvalue()
    entry = PublishedWeights(
        name="digits",
        url=server.url,
        sha256=hashlib.sha256(server.content).hexdigest()[:8],
        license="CC0-1.0",
        source="a test",
        top1_percent=98.7,
        **{"num_classes": card.num_classes, **facts},
    )
    return replace(card, weights=(entry,))


def test_published_weights_are_fetched_once(server: FileServer, empty_cache: Path) -> None:
    published = state_dict_of()
    mnist = replace(LENET.preprocessing, mean=(0.25,))
    card = publish(server, LENET, published, preprocessing=mnist)
    reports: list[tuple[int, int]] = []
    model = build_with_weights(
        card, weights="digits", progress=lambda done, total: reports.append((done, total))
    )
    assert_equal(model.module.state_dict(), published)
    assert not model.module.training
    assert model.origin == WeightsOrigin(
        "published", None, server.url, sha256_of_state_dict(published), "CC0-1.0", 98.7
    )
    assert model.preprocessing == mnist
    assert reports[-1] == (len(server.content), len(server.content))
    assert [path.name for path in empty_cache.glob("*.pth*") if path.suffix != ".lock"] == [
        "file.pth"
    ]
    assert build_with_weights(card, weights="digits").origin == model.origin
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({}, "published"),
        ({"num_classes": 10, "activation": "relu"}, "published"),
        ({"num_classes": 3}, "random"),
        ({"activation": "tanh"}, "random"),
    ],
)
def test_auto_takes_what_is_in_the_cache_and_fits(
    server: FileServer, arguments: dict[str, Any], kind: str
) -> None:
    card = publish(server, LENET, state_dict_of())
    assert build_with_weights(card, **arguments).origin.kind == "random"
    assert not server.ranges
    build_with_weights(card, weights="digits")
    assert build_with_weights(card, **arguments).origin.kind == kind


def test_published_weights_of_another_number_of_classes(server: FileServer) -> None:
    card = publish(server, LENET, state_dict_of())
    assert error_of("digits", card, num_classes=3) == (
        CheckpointMismatchError,
        "lenet5_relu's weights 'digits' have 10 classes, num_classes=3 was asked. Use weights "
        "'random', or your own file.",
    )


def test_offline(server: FileServer) -> None:
    card = publish(server, LENET, state_dict_of())
    server.statuses = [404]
    kind, message = error_of("digits", card)
    assert kind is DownloadError
    assert message.startswith(
        "Cannot download file.pth from 127.0.0.1: the server answered 404 Not Found."
    )


def test_auxiliary_heads_are_read_then_dropped(server: FileServer, tmp_path: Path) -> None:
    card = small("googlenet")
    # Narrow classes keep the file small: the heads' are 2 x 1024 a class.
    published = state_dict_of(card, aux_logits=True, num_classes=2)
    needed = {"aux_logits": True, "transform_input": True}
    card = publish(server, card, published, num_classes=2, builder_arguments=needed)
    x_NCHW = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    model = build_with_weights(card, weights="digits", num_classes=2)
    expected = {k: v for k, v in published.items() if not k.startswith("aux")}
    assert_equal(model.module.state_dict(), expected)
    complete = build_with_weights(card, weights="digits", num_classes=2, aux_logits=True)
    assert_equal(complete.module.state_dict(), published)
    plain = build_with_weights(
        card, weights="digits", num_classes=2, transform_input=False
    ).module
    with torch.no_grad():
        assert torch.equal(model.module(x_NCHW), complete.module(x_NCHW))
        assert not torch.equal(model.module(x_NCHW), plain(x_NCHW))
    # The same file, brought by hand: known by its name and its hash.
    copy = tmp_path / "file.pth"
    copy.write_bytes(server.content)
    by_hand = build_with_weights(card, weights=str(copy), num_classes=2)
    assert by_hand.origin == model.origin
    assert_equal(by_hand.module.state_dict(), expected)


def test_name_that_is_no_weights() -> None:
    card = get_card("resnet18")
    assert error_of("imagenet22k", card) == (
        WeightsError,
        "resnet18 has no weights named 'imagenet22k', and there is no such file. Expected "
        "'imagenet', 'random', 'auto' or the path of a .safetensors or .pth file.",
    )


def test_old_keys_are_renamed(tmp_path: Path) -> None:
    state_dict = state_dict_of()
    path = save({f"old.{k}": v for k, v in state_dict.items()}, tmp_path / "old.pth")
    card = replace(
        LENET, remap_keys=lambda old: {k.removeprefix("old."): v for k, v in old.items()}
    )
    assert_equal(build_with_weights(card, weights=path).module.state_dict(), state_dict)
