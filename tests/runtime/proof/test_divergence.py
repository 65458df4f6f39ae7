"""The divergence table, measured on this machine's ONNX Runtime and PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import helper

from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor
from dlzoo.runtime.proof.compare import Comparison, compare_outputs
from dlzoo.runtime.proof.divergence import DIVERGENCES, declared_divergences
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS

Array = np.ndarray[Any, Any]
LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"]


def run_node(node: onnx.NodeProto, x: Array, level: str) -> Array:
    x_info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)
    y_info = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [x_info], [y_info])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    output: Array = session.run(None, {"x": x})[0]
    return output


@pytest.mark.parametrize("level", LEVELS)
def test_onnxruntimes_maxpool_swallows_nan_and_keeps_inf(level: str) -> None:
    """If this fails, ONNX Runtime keeps NaN now: take MaxPool out of the table."""
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    x_NCHW = np.zeros((1, 1, 2, 2), np.float32)
    x_NCHW[0, 0, 0, 0] = np.nan
    assert torch.isnan(F.max_pool2d(torch.tensor(x_NCHW).double(), 2)).all()
    assert run_node(node, x_NCHW, level).item() == 0
    x_NCHW[0, 0, 0, 0] = np.inf
    assert run_node(node, x_NCHW, level).item() == np.inf


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_gelu_needs_no_entry_because_the_reference_is_float64(
    level: str, approximate: str, value: float
) -> None:
    x = np.full(64, 0.5, np.float32)
    x[[0, 31, 63]] = value
    reference = F.gelu(torch.tensor(x).double(), approximate=approximate).numpy()
    node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
    got = run_node(node, x, level)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(reference))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(reference))


def test_pytorchs_float32_gelu_of_inf_is_nan() -> None:
    """Why a noise floor is measured over finite elements only."""
    in_float32 = F.gelu(torch.full((64,), torch.inf))
    assert torch.isnan(in_float32).all()


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_onnxruntimes_recurrent_layers_swallow_nan(
    kind: type[torch.nn.RNNBase], tmp_path: Path
) -> None:
    """If this fails, ONNX Runtime keeps NaN now: take the layer out of the table."""
    from dlzoo.export.convert.onnx_from_torch import onnx_from_torch

    torch.manual_seed(0)
    layer = kind(4, 5, batch_first=True).eval()
    names = ["y", "h", "c"] if kind is torch.nn.LSTM else ["y", "h"]
    graph = onnx_from_torch(layer, {"input": torch.zeros(2, 6, 4)}, output_names=names)
    graph.save(tmp_path / "m.onnx")
    x = np.zeros((2, 6, 4), np.float32)
    x[:, 3, 1] = np.nan
    y = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(["y"], {"input": x})[0]
    reference = layer(torch.from_numpy(x))[0].detach().numpy()
    assert np.isnan(reference[:, 3:]).all() and not np.isnan(reference[:, :3]).any()
    assert not np.isnan(y).any()
    assert np.abs(y[:, :3] - reference[:, :3]).max() < 1e-6


@pytest.mark.parametrize("op", ["TopK", "ArgMax", "ArgMin"])
def test_indices_of_nan_are_let_pass_and_no_others(op: str) -> None:
    def verdict(value: float) -> Comparison:
        golden = GoldenSet(
            name="set",
            kind="drawn",
            inputs={"x": np.array([[value, 1.0, 2.0]], np.float32)},
            reference={"index": np.array([0])},
            noise={"index": NoiseFloor(0.0, 0.0)},
        )
        return compare_outputs(
            {"index": np.array([2])},
            golden,
            dtypes={"index": "int64"},
            unit_roundoff=2.0**-24,
            limits=DEFAULT_LIMITS,
            divergences=declared_divergences([op], "cpu"),
        )

    assert verdict(np.nan) and verdict(np.nan).notes == (
        "output 'index' has other indices of NaN or Inf",
    )
    assert not verdict(5.0)


def test_an_entry_counts_only_with_its_operator_and_on_its_provider() -> None:
    assert declared_divergences(["Conv", "MaxPool"], "cpu") == DIVERGENCES[:1]
    assert declared_divergences(["Conv", "Relu"], "cpu") == ()
    assert declared_divergences(["MaxPool"], "cuda") == ()


def test_every_entry_has_its_reason() -> None:
    for entry in DIVERGENCES:
        assert len(entry.reason) > 40 and entry.reference in ("NaN", "+Inf", "-Inf", "index")
