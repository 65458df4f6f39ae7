"""Where a kind of input says nothing at a size, ordinary inputs are proved there, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from dlzoo.export.reference.complete_golden_sets import complete_golden_sets
from dlzoo.export.reference.golden_inputs import ordinary_inputs
from dlzoo.export.reference.reference import compute_golden_set
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.silent_sizes import silent_sizes

DTYPES = {"y": "float32"}


def normalized_thrice() -> nn.Module:
    """An image of zeros leaves it as roundoff, three times divided by its own deviation."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for num_in, num_out in ((3, 8), (8, 8), (8, 8)):
        layers += [nn.Conv2d(num_in, num_out, 3), nn.InstanceNorm2d(num_out), nn.Tanh()]
    return nn.Sequential(*layers).eval()


def sets_of(module: nn.Module, drawn: list[tuple[str, dict[str, Any]]]) -> list[GoldenSet]:
    def compute(number: int, kind: str, inputs: dict[str, npt.NDArray[Any]]) -> GoldenSet:
        return compute_golden_set(f"set_{number}", kind, module, inputs, output_names=["y"])

    return complete_golden_sets(drawn, compute, dtypes=DTYPES, seed=3)


def test_a_size_with_zeros_alone_gets_ordinary_inputs() -> None:
    normal = np.random.default_rng(0).standard_normal((1, 3, 12, 12), np.float32)
    zeros = np.zeros((2, 3, 12, 12), np.float32)
    module = normalized_thrice()
    sets = sets_of(module, [("normal x1", {"x": normal}), ("zeros", {"x": zeros})])
    assert [golden.kind for golden in sets] == ["normal x1", "zeros", "normal x1"]
    assert silent_sizes(sets[:2], DTYPES)
    assert not silent_sizes(sets, DTYPES)
    assert sets[2].name == "set_2"
    assert sets[2].inputs["x"].shape == zeros.shape
    assert sets[2].inputs["x"].std() == pytest.approx(1, abs=0.1)


def test_zeros_that_have_an_answer_are_enough() -> None:
    zeros = np.zeros((2, 3, 12, 12), np.float32)
    module = nn.Conv2d(3, 4, 3).eval()
    assert [golden.kind for golden in sets_of(module, [("zeros", {"x": zeros})])] == ["zeros"]


def test_inputs_of_indices_alone_cannot_be_drawn_anew() -> None:
    class Noisy(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = ids.to(torch.get_default_dtype()) + 0.1  # one tenth is not a float
            return (x * 3 - x * 2 - x) * 1e8

    ids = np.array([[3, 4, 5]])
    assert len(sets_of(Noisy().eval(), [("noise image", {"ids": ids})])) == 1


def test_ordinary_inputs_keep_indices_and_fill_images() -> None:
    zeros = {"x": np.zeros((2, 5), np.float32), "ids": np.array([[7, 8]])}
    kind, drawn = ordinary_inputs(zeros, seed=0)
    assert kind == "normal x1"
    assert drawn["ids"] is zeros["ids"]
    assert drawn["x"].dtype == np.float32
    assert drawn["x"].std() > 0.3
    again = ordinary_inputs(zeros, seed=0)[1]["x"]
    assert np.array_equal(drawn["x"], again)
    kind, drawn = ordinary_inputs({"image": np.zeros((1, 8, 8, 3), np.uint8)}, seed=0)
    assert kind == "noise image"
    assert drawn["image"].dtype == np.uint8
    assert drawn["image"].max() > 200
