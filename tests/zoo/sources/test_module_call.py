"""Inputs reach a forward whatever its signature, in PyTorch and in the graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.module_call import bind_inputs
from tests.support.exported_answers import export_and_compare


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def star(net: Net, *xs: Tensor) -> Tensor:
    return net.mixed(*xs)


def rest(net: Net, x: Tensor, *rest: Tensor) -> Tensor:
    return net.mixed(x, *rest)


def rest_and_keyword(net: Net, x: Tensor, *rest: Tensor, scale: Tensor) -> Tensor:
    return net.mixed(x, *rest) * scale.mean(1)[:, None, None, None]


def keywords(net: Net, x: Tensor, **more: Tensor) -> Tensor:
    return net.mixed(x, *more.values())


def keywords_alone(net: Net, **given: Tensor) -> Tensor:
    return net.mixed(given["a"], given["b"])


def star_and_keywords(net: Net, *xs: Tensor, **more: Tensor) -> Tensor:
    return net.mixed(*xs, *more.values())


def keyword_only(net: Net, *, x: Tensor, y: Tensor | None = None) -> Tensor:
    return net.mixed(x) if y is None else net.mixed(x, y)


def optional(
    net: Net, x: Tensor, mask: Tensor | None = None, y: Tensor | None = None
) -> Tensor:
    y = x if y is None else y
    return net.mixed(x, y) if mask is None else net.mixed(x, y * mask)


def position_only(net: Net, x: Tensor, /, y: Tensor) -> Tensor:
    return net.mixed(x, y)


def dictionary(net: Net, batch: dict[str, Tensor]) -> Tensor:
    return net.mixed(batch["a"], batch["b"])


def optional_dictionary(net: Net, batch: dict[str, Tensor] | None = None) -> Tensor:
    assert batch is not None
    return net.mixed(batch["a"], batch["b"])


def dictionary_unannotated(net: Net, batch):  # type: ignore[no-untyped-def]
    return net.mixed(batch["a"], batch["b"])


def listed(net: Net, features: list[Tensor]) -> Tensor:
    return net.mixed(features[0], features[1])


def list_unannotated(net: Net, features):  # type: ignore[no-untyped-def]
    return net.mixed(features[0], features[1])


def unpacked(net: Net, features):  # type: ignore[no-untyped-def]
    first, second = features
    return net.mixed(first, second)


def sequence_and_mask(net: Net, features: Sequence[Tensor], mask: Tensor) -> Tensor:
    return net.mixed(features[0], features[1]) * mask.mean(1)[:, None, None, None]


def tupled(net: Net, features: tuple[Tensor, Tensor]) -> Tensor:
    first, second = features
    return net.mixed(first, second)


def named_tuple(net: Net, pair: Pair) -> Tensor:
    return net.mixed(pair.first, pair.second)


class Net(nn.Module):
    """Weighs its images differently, so that two in the wrong order show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)

    def mixed(self, *images: Tensor) -> Tensor:
        total: Tensor = sum(self.conv(x) * 2**i for i, x in enumerate(images))  # type: ignore[assignment]
        return total


CASES = [
    (star, "a"),
    (star, "a b"),
    (rest, "x"),
    (rest, "x a b"),
    (rest, "a b c"),
    (rest_and_keyword, "x a scale"),
    (keywords, "x a b"),
    (keywords, "a b"),
    (keywords_alone, "a b"),
    (star_and_keywords, "a b"),
    (keyword_only, "x"),
    (keyword_only, "y x"),
    (optional, "x"),
    (optional, "y x"),
    (position_only, "x y"),
    (position_only, "y x"),
    (dictionary, "a b"),
    (dictionary, "b a"),
    (dictionary, "batch_a batch_b"),
    (optional_dictionary, "a b"),
    (dictionary_unannotated, "a b"),
    (listed, "a b"),
    (list_unannotated, "a b"),
    (list_unannotated, "features_0 features_1"),
    (unpacked, "a b"),
    (sequence_and_mask, "a b mask"),
    (tupled, "a b"),
    (named_tuple, "a b"),
]


def spec(name: str) -> InputSpec:
    return InputSpec(name=name, shape=(1, 4) if name in ("scale", "mask") else (1, 3, 6, 6))


@pytest.mark.parametrize(("forward", "names"), CASES)
def test_every_signature_exports(forward: Any, names: str, tmp_path: Path) -> None:
    specs = [spec(name) for name in names.split()]
    net = type("Called", (Net,), {"forward": forward})().eval()
    exported = export_and_compare(net, tmp_path, *specs)
    assert sorted(exported.inputs) == sorted(s.name for s in specs)
    assert "forward" not in vars(net)


@pytest.mark.parametrize(
    ("forward", "names", "expected"),
    [
        (rest, "x a b", (("x", "a", "b"), {})),
        (rest_and_keyword, "scale x a", (("x", "a"), {"scale": "scale"})),
        (keywords, "mask x", ((), {"x": "x", "mask": "mask"})),
        (optional, "y x", ((), {"x": "x", "y": "y"})),
        (position_only, "y x", (("x",), {"y": "y"})),
        (dictionary, "a b", ((), {"batch": {"a": "a", "b": "b"}})),
        (dictionary, "batch_a batch_b", ((), {"batch": {"a": "batch_a", "b": "batch_b"}})),
        (tupled, "a b", ((), {"features": ("a", "b")})),
        (listed, "a", ((), {"features": ["a"]})),
        (sequence_and_mask, "a mask b", ((), {"features": ["a", "b"], "mask": "mask"})),
    ],
)
def test_which_argument_gets_which_input(
    forward: Any, names: str, expected: tuple[tuple[str, ...], dict[str, Any]]
) -> None:
    net = type("Called", (Net,), {"forward": forward})()
    assert bind_inputs(net, {name: name for name in names.split()}) == expected
