"""Adaptive pooling with windows that depend on the size: PyTorch's answer at every size."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch

OPEN = {"x": {0: "batch", 2: "height", 3: "width"}}
#: Below, at, beside and far above the output size; multiples and not.
SIZES = [(6, 5), (1, 1), (2, 9), (5, 6), (7, 7), (12, 10), (13, 11), (64, 33), (6, 224)]
#: float32 sums of a window, against float64.
MAX_ERROR = 2e-6


class MaxWithPlaces(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        largest, places = nn.functional.adaptive_max_pool2d(x, (6, 5), return_indices=True)
        return largest, places


def session_of(
    module: nn.Module,
    folder: Path,
    *,
    opset: int,
    size: tuple[int, int] | None,
    names: tuple[str, ...],
) -> tuple[onnxruntime.InferenceSession, dict[str, int]]:
    graph = onnx_from_torch(
        module.eval(),
        {"x": torch.zeros(2, 3, *(size or (24, 20)))},
        output_names=names,
        opset=opset,
        dynamic_axes={"x": {0: "batch"}} if size else OPEN,
    )
    graph.save(folder / "model.onnx")
    return onnxruntime.InferenceSession(folder / "model.onnx"), graph.num_nodes_by_op


@pytest.mark.parametrize("opset", [11, 13, 18, 20])
@pytest.mark.parametrize("kind", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_open_sizes(kind: type[nn.Module], opset: int, tmp_path: Path) -> None:
    module = kind((6, 5))
    session, _ = session_of(module, tmp_path, opset=opset, size=None, names=("y",))
    generator = np.random.default_rng(0)
    for size in SIZES:
        x = generator.standard_normal((2, 3, *size)).astype(np.float32)
        x[0, 0, size[0] // 2, size[1] // 2] = np.inf
        x[1, 1, 0, 0] = -np.inf
        (y,) = session.run(None, {"x": x})
        expected = module(torch.from_numpy(x).double()).numpy()
        np.testing.assert_allclose(y, expected, rtol=0, atol=MAX_ERROR, err_msg=str(size))


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("kind", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_a_nan_stays_in_the_windows_that_hold_it(
    kind: type[nn.Module], opset: int, tmp_path: Path
) -> None:
    module = kind((6, 5))
    session, _ = session_of(module, tmp_path, opset=opset, size=None, names=("y",))
    x = np.ones((2, 3, 13, 11), np.float32)
    x[0, 0, 4, 4] = np.nan
    (y,) = session.run(None, {"x": x})
    expected = module(torch.from_numpy(x)).numpy()
    assert 0 < np.isnan(expected).sum() < expected.size
    assert (np.isnan(y) == np.isnan(expected)).all()


@pytest.mark.parametrize("size", [None, (13, 11), (12, 10)])
def test_places_of_the_largest(size: tuple[int, int] | None, tmp_path: Path) -> None:
    module = MaxWithPlaces()
    session, _ = session_of(module, tmp_path, opset=20, size=size, names=("y", "places"))
    x = np.random.default_rng(1).integers(0, 5, (2, 3, *(size or (17, 9)))).astype(np.float32)
    y, places = session.run(None, {"x": x})
    expected, expected_places = module(torch.from_numpy(x))
    assert (y == expected.numpy()).all()
    assert (places == expected_places.numpy()).all(), "ties go to the first, as in PyTorch"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((6, 5), {"Identity"}),
        ((12, 10), {"AveragePool"}),
        ((13, 10), {"Gather", "Where", "ReduceSum", "Div"}),
    ],
)
def test_known_sizes_are_spelled_as_simply_as_they_can_be(
    size: tuple[int, int], expected: set[str], tmp_path: Path
) -> None:
    module = nn.AdaptiveAvgPool2d((6, 5))
    session, ops = session_of(module, tmp_path, opset=20, size=size, names=("y",))
    assert set(ops) - {"Constant", "Unsqueeze"} == expected
    x = np.random.default_rng(2).standard_normal((3, 3, *size)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    expected_y = module(torch.from_numpy(x).double()).numpy()
    assert np.abs(y - expected_y).max() < MAX_ERROR
