"""Average pooling with a divisor of one's own."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.support.side_by_side import Function, wrong_functions

IMAGES: dict[str, Function] = {
    "plain": lambda x: F.avg_pool2d(x, 2),
    "sum": lambda x: F.avg_pool2d(x, 2, divisor_override=1),
    "negative": lambda x: F.avg_pool2d(x, 2, divisor_override=-4),
    "padded": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=7),
    "ceil_mode": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False, divisor_override=7),
    "a window is dropped": lambda x: F.avg_pool2d(x, 3, 3, 1, True, divisor_override=2),
    "steps beyond the kernel": lambda x: F.avg_pool2d(x, 2, 3, 1, True, divisor_override=2),
    "unequal": lambda x: F.avg_pool2d(x, (2, 3), (1, 2), (1, 0), divisor_override=5),
    "without a batch": lambda x: F.avg_pool2d(x[0], 2, divisor_override=3),
    "layer": nn.AvgPool2d(2, divisor_override=1),
}
VOLUMES: dict[str, Function] = {
    "sum": lambda x: F.avg_pool3d(x, 2, divisor_override=1),
    "ceil_mode": lambda x: F.avg_pool3d(x, 3, 2, 1, True, divisor_override=3),
    "layer": nn.AvgPool3d(2, divisor_override=1),
}


@pytest.mark.parametrize("opset", [11, 18, 20, 23])
def test_images(opset: int, tmp_path: Path) -> None:
    x = torch.zeros(2, 3, 11, 11)
    assert wrong_functions(IMAGES, {"x": x}, tmp_path, opset=opset) == []


def test_open_images(tmp_path: Path) -> None:
    wrong = wrong_functions(
        IMAGES,
        {"x": torch.zeros(2, 3, 11, 11)},
        tmp_path,
        opset=20,
        open_axes={0: "batch", 2: "height", 3: "width"},
        sizes=[(2, 3, 9, 10), (1, 3, 12, 13), (3, 3, 10, 14)],
    )
    assert wrong == []


def test_volumes(tmp_path: Path) -> None:
    x = torch.zeros(2, 2, 6, 7, 8)
    assert wrong_functions(VOLUMES, {"x": x}, tmp_path, opset=17) == []
