"""Each adapter gives the same numbers in the older opset, on ONNX Runtime without optimization."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.graph.valid_nodes import invalid_nodes
from dlzoo.export.opset.adapter import ADAPTERS

#: float32 sums of at most 54 terms of about 1.
SMALL_ERROR = 1e-5


def whole(x: Tensor) -> Tensor:
    """Whole numbers of 8 bits, whose sums overflow."""
    return (100 * x).abs().clamp(0, 255).to(torch.uint8)


#: By the operator that is adapted: a function of x [2, 6, 8, 9].
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReduceMean": lambda x: x.mean(dim=(1, 3), keepdim=True),
    "ReduceMax": lambda x: x.amax(dim=2),
    "ReduceL2": lambda x: torch.linalg.vector_norm(x, dim=1),
    "ReduceSum": lambda x: x.sum(dim=(2, 3)),
    "Squeeze": lambda x: x[:, :1].squeeze(1) + x[:, 0].unsqueeze(1).squeeze(1),
    "Unsqueeze": lambda x: x.unsqueeze(2) * x.unsqueeze(3).transpose(2, 3),
    "Split": lambda x: torch.cat(x.split([1, 2, 3], dim=1)[::-1], dim=1),
    "Split, equal": lambda x: torch.stack(x.chunk(3, dim=1)).prod(dim=0),
    "Softmax": lambda x: x.softmax(dim=1) + x.softmax(dim=-1),
    "LogSoftmax": lambda x: x.log_softmax(dim=2),
    "Pad": lambda x: F.pad(x, (1, 2), value=0.5) + F.pad(x, (2, 1, 0, 0), mode="reflect"),
    "Pad, circular": lambda x: F.pad(x, (1, 2, 3, 0), mode="circular"),
    "Pad, circular and cut off": lambda x: F.pad(x, (-1, 2, 1, -3), mode="circular"),
    "Add": lambda x: (whole(x) + whole(x)).float(),
    "Sub": lambda x: (1 - whole(x)).float(),
    "Mul": lambda x: (whole(x) * 3).float(),
    "Div": lambda x: torch.div(whole(x), 3, rounding_mode="trunc").float(),
    "Resize": lambda x: F.interpolate(x, size=(5, 13), mode="bilinear"),
    "Resize, scales": lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "GreaterOrEqual": lambda x: torch.where(x >= 0.25, x, -x),
    "LessOrEqual": lambda x: torch.where(x <= x.flip(0), x, -x),
    "Shape": lambda x: x.reshape(x.shape[0] * x.shape[1], -1),
    "Reshape": lambda x: x.reshape(x.shape[0], 3, -1).transpose(1, 2).flatten(1),
    "Max": lambda x: torch.maximum((8 * x).long(), (8 * x.flip(1)).long()).float(),
    "Min": lambda x: torch.minimum((8 * x).long(), (8 * x.flip(1)).long()).float(),
    "HardSwish": F.hardswish,
    "LeakyRelu": lambda x: F.leaky_relu(x, 0.3),
    "Pow": lambda x: x.abs() ** 1.5,
    "Clip": lambda x: x.clamp(-0.5, 0.75),
    "ArgMax": lambda x: x.argmax(dim=1).float(),
    "CumSum": lambda x: x.cumsum(dim=1),
    "Where": lambda x: x.masked_fill(x < 0, 2.0),
    "Gather": lambda x: x[:, [3, 0, 5]],
    "BatchNormalization": lambda x: F.batch_norm(
        x, torch.full((6,), 0.1), torch.full((6,), 1.5), eps=1e-3
    ),
}


class SideBySide(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [function(x) for function in FUNCTIONS.values()]


@pytest.mark.parametrize("opset", [11, 12, 13, 14, 15, 16, 17, 18])
def test_same_numbers(opset: int, tmp_path: Path) -> None:
    graph = onnx_from_torch(
        SideBySide(),
        {"x": torch.zeros(2, 6, 8, 9)},
        output_names=[f"y{number}" for number in range(len(FUNCTIONS))],
        opset=opset,
        dynamic_axes={"x": {0: "batch"}},
    )
    graph.save(tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    x = torch.randn(3, 6, 8, 9, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, :4] = torch.tensor([0.25, -0.5, 0.75, 0.0])  # where comparisons meet
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)
    assert list(invalid_nodes(graph.model)) == []
    for name, got, expected in zip(
        FUNCTIONS, session.run(None, {"x": x.numpy()}), SideBySide()(x), strict=True
    ):
        assert got.shape == expected.shape, name
        assert np.abs(got - expected.numpy()).max() < SMALL_ERROR, name


def test_every_adapter_but_these_is_in_the_test() -> None:
    adapted = {op_type for op_type, _ in ADAPTERS}
    tested = {name.split(",")[0] for name in FUNCTIONS}
    # One adapter for all reductions; LogSoftmax's; nothing that torch traces becomes the others.
    same = {op for op in adapted if op.startswith("Reduce")} | {"Hardmax"}
    assert adapted - tested - same == {"CastLike", "Constant", "Dropout"}


@pytest.mark.parametrize("opset", [11, 18, 19])
def test_circular_padding_in_a_second_runtime(opset: int) -> None:
    """By onnx's own evaluator, which reads what the opset says."""
    layer = nn.Conv2d(6, 2, 3, padding=(2, 1), padding_mode="circular").eval()
    graph = onnx_from_torch(
        layer,
        {"x": torch.zeros(2, 6, 8, 9)},
        output_names=["y"],
        opset=opset,
        dynamic_axes={"x": {0: "batch"}},
    )
    modes = [
        node.attributes["mode"].value for node in graph.model.graph if node.op_type == "Pad"
    ]
    assert modes == (["wrap"] if opset >= 19 else [])
    x = torch.randn(3, 6, 8, 9)
    (y,) = ReferenceEvaluator(ir.to_proto(graph.model)).run(None, {"x": x.numpy()})
    assert np.abs(y - layer(x).detach().numpy()).max() < SMALL_ERROR
