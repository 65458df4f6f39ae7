"""Windows of pooling: PyTorch's, where only ONNX's shape inference objects, at every opset."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.support.side_by_side import Function, wrong_functions

#: Kernel, stride, padding; in half of them a last window would start beyond the image.
WINDOWS = [(3, 3, 1), (3, 2, 0), (2, 2, 1), (2, 3, 0), (5, 3, 2), (3, 4, 1)]


def pools(num_axes: int) -> dict[str, Function]:
    average = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[num_axes]
    maximum = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[num_axes]
    made: dict[str, Function] = {}
    for window in WINDOWS:
        made[f"average {window}"] = average(*window, ceil_mode=True)
        made[f"average of the image {window}"] = average(
            *window, ceil_mode=True, count_include_pad=False
        )
        made[f"maximum {window}"] = maximum(*window, ceil_mode=True)
    return made


@pytest.mark.parametrize("opset", [11, 16, 18, 20, 21, 22, 24])
def test_images_of_eleven_by_eleven(opset: int, tmp_path: Path) -> None:
    x = torch.zeros(2, 2, 11, 11)
    assert wrong_functions(pools(2), {"x": x}, tmp_path, opset=opset) == []


@pytest.mark.parametrize(("opset", "shape"), [(11, (2, 3, 11)), (20, (2, 2, 11, 7, 6))])
def test_rows_and_volumes(opset: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    x = torch.zeros(shape)
    assert wrong_functions(pools(len(shape) - 2), {"x": x}, tmp_path, opset=opset) == []


@pytest.mark.parametrize("open_axes", [{2: "height"}, {3: "width"}, {2: "height", 3: "width"}])
def test_open_sizes(open_axes: dict[int, str], tmp_path: Path) -> None:
    sizes = [
        (2, 2, height if 2 in open_axes else 11, width if 3 in open_axes else 11)
        for height, width in itertools.product((9, 12, 14), (10, 13))
    ]
    wrong = wrong_functions(
        pools(2),
        {"x": torch.zeros(2, 2, 11, 11)},
        tmp_path,
        opset=20,
        open_axes={0: "batch", **open_axes},
        sizes=sizes,
    )
    assert wrong == []


@pytest.mark.parametrize("shape", [(2, 3, 11), (2, 2, 11, 7, 6)])
def test_open_rows_and_volumes(shape: tuple[int, ...], tmp_path: Path) -> None:
    sizes = [(2, shape[1], size, *shape[3:]) for size in (9, 10, 12, 13)]
    wrong = wrong_functions(
        pools(len(shape) - 2),
        {"x": torch.zeros(shape)},
        tmp_path,
        opset=20,
        open_axes={0: "batch", 2: "length"},
        sizes=sizes,
    )
    assert wrong == []


DILATED: dict[str, Function] = {
    "dilated": lambda x: F.max_pool2d(x, 3, 2, 1, dilation=2, ceil_mode=True),
    "padding as wide as the kernel": lambda x: F.max_pool2d(
        x[..., :10], 2, 3, 1, dilation=3, ceil_mode=True
    ),
    "places": lambda x: F.max_pool2d(x, 3, 3, 1, ceil_mode=True, return_indices=True)[1],
    "without a batch": lambda x: F.avg_pool2d(x[0], 3, 3, 1, True),
}


@pytest.mark.parametrize("opset", [11, 20])
def test_dilated_windows_and_places(opset: int, tmp_path: Path) -> None:
    x = torch.zeros(2, 2, 11, 11)
    assert wrong_functions(DILATED, {"x": x}, tmp_path, opset=opset) == []
