"""What ONNX Runtime refuses and PyTorch allows is written in another way, or refused by name."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlzoo.errors import ExportError
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from tests.support.side_by_side import Function, wrong_functions

#: With an ``output_padding`` from the stride on.
TRANSPOSED: dict[int, dict[str, Function]] = {
    1: {"row": nn.ConvTranspose1d(4, 6, 3, padding=1, dilation=2, output_padding=1)},
    2: {
        "issue": nn.ConvTranspose2d(4, 6, 2, padding=1, dilation=2, output_padding=1),
        "beyond all inputs": nn.ConvTranspose2d(
            4, 6, 3, padding=1, dilation=3, output_padding=2
        ),
        "stride 2": nn.ConvTranspose2d(4, 6, 3, 2, padding=1, dilation=3, output_padding=2),
        "groups": nn.ConvTranspose2d(
            4, 6, 3, padding=1, dilation=2, output_padding=1, groups=2
        ),
        "no bias": nn.ConvTranspose2d(4, 6, 3, dilation=2, output_padding=1, bias=False),
        "unequal": nn.ConvTranspose2d(
            4, 6, (3, 2), (2, 1), padding=(1, 0), dilation=(1, 2), output_padding=1
        ),
        "within the limit": nn.ConvTranspose2d(4, 6, 3, 2, padding=1, output_padding=1),
    },
    3: {"volume": nn.ConvTranspose3d(4, 6, 3, padding=1, dilation=2, output_padding=1)},
}


@pytest.mark.parametrize("opset", [11, 18, 20])
@pytest.mark.parametrize("num_axes", [1, 2, 3])
def test_transposed_convolution(num_axes: int, opset: int, tmp_path: Path) -> None:
    x = torch.zeros(2, 4, *(5, 6, 7)[:num_axes])
    assert wrong_functions(TRANSPOSED[num_axes], {"x": x}, tmp_path, opset=opset) == []


TRUTHS: dict[str, Function] = {
    "where": lambda x: torch.where(x > 0, True, x < -1),
    "sum": lambda x: (x > 0) + (x < -1),
    "product": lambda x: (x > 0) * (x < 1),
    "mean": lambda x: (x > 0).float().mean(1),
    "largest": lambda x: (x > 0).max(1)[0],
    "any": lambda x: (x > 0).any(1),
    "count": lambda x: (x > 0).sum(1),
    "ellipsis": lambda x: torch.einsum("b...,b...->b", x, x),
}
WHOLE_NUMBERS: dict[str, Function] = {
    "relu": lambda x: x.relu(),
    "power": lambda x: x**2,
    "product": lambda x: x @ x.transpose(-1, -2),
    "opposite": lambda x: -x,
    "maximum": lambda x: F.max_pool2d(x, 2),
    "half": lambda x: x // 2,
    "mean": lambda x: x.float().mean(1),
    "add": lambda x: x + 1,
}


@pytest.mark.parametrize("opset", [13, 18, 20])
def test_truths(opset: int, tmp_path: Path) -> None:
    x = torch.zeros(2, 4, 4)
    assert wrong_functions(TRUTHS, {"x": x}, tmp_path, opset=opset) == []


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8], ids=str)
def test_whole_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.zeros(2, 3, 4, 4, dtype=dtype)
    assert wrong_functions(WHOLE_NUMBERS, {"x": x}, tmp_path, opset=20) == []


def test_type_without_a_kernel_is_named_with_its_layer() -> None:
    with pytest.raises(ExportError) as e:
        onnx_from_torch(
            nn.Sequential(nn.ReLU(), nn.Conv1d(3, 4, 3)).double().eval(),
            {"x": torch.zeros(2, 3, 9, dtype=torch.float64)},
            output_names=["y"],
        )
    assert str(e.value) == (
        "ONNX Runtime's CPU provider has no Conv of float64 at opset 20, which conv1d in module '1' "
        "becomes. To export it, convert the network and its inputs to float32 with .float()."
    )


def test_functions_of_the_exporter_lose_their_comments(tmp_path: Path) -> None:
    """Below opset 20 the exporter writes an EmbeddingBag with a subgraph of its own."""
    bag = nn.EmbeddingBag(5, 3)
    functions: dict[str, Function] = {"bag": lambda x: bag(x % 5)}
    x = torch.zeros(2, 4, dtype=torch.int64)
    assert wrong_functions(functions, {"x": x}, tmp_path, opset=18) == []
