"""Outputs have the network's own names, whatever else is called so."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from tests.support.exported_graphs import SMALL_ERROR, run_graph


class Named(nn.Module):
    def __init__(self, function: Callable[[nn.Linear, Tensor], dict[str, Tensor]]) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.function = function

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.function(self.fc, x)


NETWORKS: dict[str, Callable[[nn.Linear, Tensor], dict[str, Tensor]]] = {
    "behind a mean": lambda fc, x: {
        "mean": fc(x.mean(1, keepdim=True).expand(-1, 4)),
        "logvar": fc(x),
    },
    "operators": lambda fc, x: {"linear": fc(x).relu(), "relu": fc(x).relu().exp()},
    "exchanged": lambda fc, x: {"exp": x.sin(), "sin": x.exp(), "val_0": x.softmax(1)},
    "parameters": lambda fc, x: {"fc.weight": fc(x), "fc.bias": fc(x) * 2},
    "upper and lower case": lambda fc, x: {"Mean": fc(x), "mean": x * 2},
    "one tensor twice": lambda fc, x: {"mean": x.mean(1), "again": x.mean(1)},
    "an input and a constant": lambda fc, x: {"same": x, "ones": torch.ones(3), "y": fc(x)},
    "a parameter itself": lambda fc, x: {"fc.weight": fc.weight.detach(), "y": fc(x)},
}


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("kind", NETWORKS)
def test_names_are_delivered(kind: str, opset: int, tmp_path: Path) -> None:
    network = Named(NETWORKS[kind]).eval()
    x = torch.randn(3, 4)
    with torch.no_grad():
        expected = network(x)
    graph = onnx_from_torch(
        network,
        {"x": torch.zeros(2, 4)},
        output_names=list(expected),
        opset=opset,
        dynamic_axes={"x": {0: "batch"}},
    )
    assert [spec.name for spec in graph.outputs] == list(expected)
    outputs = run_graph(graph, tmp_path, x=x)
    for got, y in zip(outputs, expected.values(), strict=True):
        assert np.abs(got - y.numpy()).max() < SMALL_ERROR
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"), full_check=True)


def test_name_of_an_input_is_refused() -> None:
    with pytest.raises(ExportError) as e:
        onnx_from_torch(
            Named(lambda fc, x: {"x": fc(x)}).eval(),
            {"x": torch.zeros(2, 4)},
            output_names=["x"],
        )
    assert str(e.value) == (
        "Output 'x' has the name of an input, and in an ONNX graph a name is one value. Return it "
        "under another key, or rename the argument of forward."
    )
