"""Every layer of an export against PyTorch: all found, in order, and a fault shows where it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import dlzoo
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.export.prove.layer_proof import MAX_MULTIPLY_ADDS, measure_layers
from dlzoo.export.reference.reference import compute_golden_set
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.layer_errors import LayerErrors
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.report import Report

LIMITS = Limits(rho2=3.0, rhomax=6.0)


class Residual(nn.Module):
    """Two convolutions, one of them around a shortcut, then scores of four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.body(x)
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


@pytest.fixture(scope="module")
def exported() -> tuple[OnnxGraph, GoldenSet]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Residual().eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    inputs = {"x": torch.from_numpy(x)}
    graph = onnx_from_torch(module, inputs, output_names=["scores"])
    golden = compute_golden_set(
        "test_data_set_0", "normal x1", module, {"x": x}, output_names=["scores"]
    )
    return graph, golden


def measure(graph: OnnxGraph, path: Path, golden: GoldenSet, cost: int = 1) -> LayerErrors:
    return measure_layers(
        graph, path, golden, num_multiply_adds=cost, limits=LIMITS, provider="cpu"
    )


def test_every_layer_is_named_in_graph_order(
    exported: tuple[OnnxGraph, GoldenSet], tmp_path: Path
) -> None:
    graph, golden = exported
    graph.save(tmp_path / "model.onnx")
    layers = measure(graph, tmp_path / "model.onnx", golden)
    found = [(layer.module, layer.op_type) for layer in layers.values]
    assert found == [
        *(("stem", "Conv"), ("", "Relu"), ("body", "Conv"), ("", "Add")),
        *(("", "ReduceMean"), ("head", "Gemm")),
    ]
    assert layers.num_values == 6
    assert (layers.kind, layers.batch, layers.provider) == ("normal x1", 2, "cpu")
    assert all(layer.verdict == "pass" for layer in layers.values)
    lines = [layer.source.rpartition("/")[2] for layer in layers.values]
    code = Path(__file__).read_text().splitlines()
    first = 1 + code.index("        x = self.stem(x).relu()")
    expected = (first, first, first + 1, first + 1, first + 2, first + 2)
    assert lines == [f"test_layer_proof.py:{line}" for line in expected]


def test_a_fault_shows_where_it_is(
    exported: tuple[OnnxGraph, GoldenSet], tmp_path: Path
) -> None:
    graph, golden = exported
    path = tmp_path / "model.onnx"
    graph.save(path)
    model = onnx.load(path)
    (weight,) = (w for w in model.graph.initializer if w.name == "body.weight")
    weight.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(weight) * 1.001, weight.name)
    )
    onnx.save(model, path)
    layers = measure(graph, path, golden).values
    first = next(layer for layer in layers if layer.verdict == "fail")
    assert first.module == "body" and first.rho2 is not None and first.rho2 > 3
    assert layers[0].verdict == layers[1].verdict == "pass"


def test_a_costly_network_says_how_to_see_its_layers(
    exported: tuple[OnnxGraph, GoldenSet], tmp_path: Path
) -> None:
    graph, golden = exported
    layers = measure(graph, tmp_path / "none.onnx", golden, cost=int(MAX_MULTIPLY_ADDS))
    assert layers.values == ()
    assert "10.0 billion multiply-adds" in layers.reason
    assert "dlzoo diff MODEL BUNDLE --report report.html" in layers.reason


def test_what_pytorch_cannot_run_in_float64_is_said(
    exported: tuple[OnnxGraph, GoldenSet], tmp_path: Path
) -> None:
    graph, golden = exported
    graph.save(tmp_path / "model.onnx")
    program = torch.export.export(_Narrow().eval(), (torch.ones(2, 3, 8, 8),))
    layers = measure(replace(graph, program=program), tmp_path / "model.onnx", golden)
    assert layers.values == ()
    assert layers.reason.startswith("PyTorch cannot run it in float64: ")


class _Narrow(nn.Module):
    """Reads the bits of float32, which float64 has not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(torch.int32).reshape(2, 3, 8, 4, 2).float()


def test_a_bundle_holds_the_errors_of_its_layers(tmp_path: Path) -> None:
    bundle: Bundle = dlzoo.export_model("lenet5_relu", tmp_path / "lenet", weights="random")
    report = Report.from_json(bundle.parity())
    assert report.layers is not None
    modules = [layer.module for layer in report.layers.values]
    assert modules[:3] == ["c1", "act1", "s2"] and modules[-1] == "output"
    (output,) = (layer for layer in report.layers.values if layer.value == "logits")
    untapped = next(
        result
        for result in report.candidates
        if (result.golden, result.optimization) == ("test_data_set_0", "disabled")
    )
    assert output.rho2 is not None and untapped.rho2 is not None
    assert output.rho2 == pytest.approx(untapped.rho2, rel=0.5)
    assert report.power is not None and len(report.power.missed) == (
        report.power.tried - report.power.detected
    )
