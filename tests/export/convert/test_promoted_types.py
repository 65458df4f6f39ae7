"""Operators of mixed types give PyTorch's numbers in PyTorch's type."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.support.side_by_side import Function, wrong_functions

LINEAR = nn.Linear(4, 4)
#: Of a float ``x`` [B, 4] and a mask of whole numbers.
FUNCTIONS: dict[str, Function] = {
    "issue": lambda x, mask: LINEAR(x) * (1.0 - mask),
    "rsub": lambda x, mask: torch.rsub(mask, 1.5) + x,
    "rsub, alpha": lambda x, mask: torch.rsub(mask, x, alpha=2),
    "whole numbers": lambda x, mask: (1 - mask) * x,
    "stack": lambda x, mask: torch.stack([x, mask], 1),
    "cat": lambda x, mask: torch.cat([x, mask], 1),
    "where": lambda x, mask: torch.where(mask > 0, x, mask),
    "where, number": lambda x, mask: torch.where(x > 0, mask, 0.5),
    "comparison": lambda x, mask: (x > mask) | (mask <= 0.5),
    "power": lambda x, mask: x.abs() ** mask,
    "quotient": lambda x, mask: x + mask / 3,
    "sum": lambda x, mask: x / mask.sum(1, keepdim=True).clamp(min=1),
    "filled": lambda x, mask: x.masked_fill(mask == 0, -1.0),
    "softmax": lambda x, mask: F.softmax(mask, 1, dtype=torch.float32) + x,
    "log_softmax": lambda x, mask: mask.log_softmax(1, dtype=torch.float32) + x,
    "arange": lambda x, mask: x + torch.arange(4) * mask,
    "float64": lambda x, mask: (x.double() * torch.tensor([1.5, 2, 3, 4]).double()).float(),
}
#: PyTorch subtracts no booleans and takes no softmax of them.
OF_BOOLEANS = {
    name: function
    for name, function in FUNCTIONS.items()
    if name not in ("issue", "rsub", "rsub, alpha", "whole numbers", "softmax", "log_softmax")
} | {"mean": lambda x, mask: x * mask.float().mean(1, keepdim=True), "product": torch.mul}


@pytest.mark.parametrize("opset", [13, 18, 20])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool], ids=str)
def test_same_numbers_and_type(dtype: torch.dtype, opset: int, tmp_path: Path) -> None:
    inputs = {"x": torch.zeros(2, 4), "mask": torch.ones(2, 4, dtype=dtype)}
    functions = OF_BOOLEANS if dtype == torch.bool else FUNCTIONS
    assert wrong_functions(functions, inputs, tmp_path, opset=opset) == []
