"""The record of how layers came out says what the graph holds."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.export.graph.onnx_graph import OnnxGraph

Export = Callable[..., OnnxGraph]


def rows_by_layer(graph: OnnxGraph) -> dict[str, dict[str, Any]]:
    rows = {row["layer"]: row for row in graph.lowering}
    assert len(rows) == len(graph.lowering), "each layer is spelled in one way here"
    return rows


def test_small_net(small_graph: OnnxGraph) -> None:
    rows = rows_by_layer(small_graph)
    assert rows["Conv2d"] == {
        "layer": "Conv2d",
        "spelling": "native",
        "onnx": ["Conv"],
        "num_nodes": 1,
        "count": 1,
        "modules": ["conv"],
    }
    assert (rows["BatchNorm2d"]["spelling"], rows["BatchNorm2d"]["onnx"]) == ("folded", [])
    assert (rows["Dropout"]["spelling"], rows["Dropout"]["modules"]) == ("removed", ["drop"])
    # One module, called twice: two native calls and not one of two nodes.
    assert (rows["ReLU"]["spelling"], rows["ReLU"]["count"]) == ("native", 2)
    assert rows["ReLU"]["modules"] == ["act"]
    assert rows["AdaptiveAvgPool2d"]["onnx"] == ["ReduceMean"]


def test_every_node_is_in_the_record(small_graph: OnnxGraph) -> None:
    recorded = sum(row["num_nodes"] * row["count"] for row in small_graph.lowering)
    assert recorded == sum(small_graph.num_nodes_by_op.values())


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.SiLU()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(x, x, x)[0]
        return self.act(y) + F.gelu(x)


def test_decomposed_layers_and_operators_of_a_forward(export: Export) -> None:
    rows = rows_by_layer(export(Mixed(), 2, 5, 8, opset=18))
    assert (rows["SiLU"]["spelling"], rows["SiLU"]["onnx"]) == (
        "decomposed",
        ["Sigmoid", "Mul"],
    )
    assert (rows["gelu"]["spelling"], rows["gelu"]["num_nodes"]) == ("decomposed", 5)
    assert rows["gelu"]["modules"] == [""]
    assert rows["MultiheadAttention"]["num_nodes"] > 5
    assert "NonDynamicallyQuantizableLinear" not in rows, "a part of the attention layer"


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.used(x)
        return torch.relu(y)


def test_layer_that_is_never_called_is_removed_and_its_weights_are_not_used(
    export: Export,
) -> None:
    graph = export(Unused(), 2, 3)
    spellings = {(row["spelling"], *row["modules"]) for row in graph.lowering}
    assert {("native", "used"), ("removed", "spare")} <= spellings
    assert graph.parameters == ("used.weight", "used.bias")
