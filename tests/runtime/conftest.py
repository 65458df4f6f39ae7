"""A small bundle that is made without the exporter: its ONNX by hand, its answers by PyTorch."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper

from dlzoo.runtime.bundle.bundle import Bundle, write_manifest, write_parity
from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor, write_golden_set
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from tests.support.manifests import make_manifest

# Shape legend: N batch, C channels, H and W height and width, K classes.
Weights = dict[str, np.ndarray[Any, Any]]
INPUT = TensorSpec(name="image", dtype="float32", dims=("batch", 3, 12, 12))
OUTPUT = TensorSpec(name="logits", dtype="float32", dims=("batch", 10))
SMALL: dict[str, Any] = {
    "name": "small",
    "inputs": (INPUT,),
    "outputs": (OUTPUT,),
    # The golden data hold these batches.
    "dynamic_axes": {"batch": AxisRange(symbol="batch", min=1, max=None, proved=(1, 2, 5))},
}


def draw_weights() -> Weights:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray[Any, Any]:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    return {
        "conv1.weight": draw(16, 3, 3, 3),
        "conv1.bias": draw(16),
        "conv2.weight": draw(32, 16, 3, 3),
        "conv2.bias": draw(32),
        "fc.weight": draw(10, 32),
        "fc.bias": draw(10),
    }


def network(weights: Weights, x_NCHW: torch.Tensor) -> torch.Tensor:
    """Two convolutions with max pooling between, global average pooling, a linear layer."""
    w = {name: torch.tensor(array).to(x_NCHW.dtype) for name, array in weights.items()}
    x_NCHW = F.relu(F.conv2d(x_NCHW, w["conv1.weight"], w["conv1.bias"], padding=1))
    x_NCHW = F.max_pool2d(x_NCHW, 2)
    x_NCHW = F.relu(F.conv2d(x_NCHW, w["conv2.weight"], w["conv2.bias"], padding=1))
    scores_NK: torch.Tensor = F.linear(x_NCHW.mean((2, 3)), w["fc.weight"], w["fc.bias"])
    return scores_NK


def network_in_onnx(weights: Weights) -> onnx.ModelProto:
    """The same network as an ONNX graph."""
    nodes = [
        helper.make_node(
            "Conv", ["image", "conv1.weight", "conv1.bias"], ["a"], name="conv1", pads=[1] * 4
        ),
        helper.make_node("Relu", ["a"], ["b"], name="relu1"),
        helper.make_node(
            "MaxPool", ["b"], ["c"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node(
            "Conv", ["c", "conv2.weight", "conv2.bias"], ["d"], name="conv2", pads=[1] * 4
        ),
        helper.make_node("Relu", ["d"], ["e"], name="relu2"),
        helper.make_node("ReduceMean", ["e", "axes"], ["f"], name="mean", keepdims=0),
        helper.make_node(
            "Gemm", ["f", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(INPUT.name, onnx.TensorProto.FLOAT, INPUT.dims)],
        [helper.make_tensor_value_info(OUTPUT.name, onnx.TensorProto.FLOAT, OUTPUT.dims)],
        [
            *(numpy_helper.from_array(array, name) for name, array in weights.items()),
            numpy_helper.from_array(np.array([2, 3]), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def golden_set(number: int, kind: str, x: np.ndarray[Any, Any], weights: Weights) -> GoldenSet:
    with torch.no_grad():
        reference = network(weights, torch.tensor(x).double()).numpy()
        ways = [
            network(weights, torch.tensor(x)),
            torch.cat([network(weights, torch.tensor(x[i : i + 1])) for i in range(len(x))]),
        ]
    finite = np.isfinite(reference)
    errors = [(way.numpy().astype(np.float64) - reference)[finite] for way in ways]
    noise = NoiseFloor(
        max(float(np.sqrt(np.mean(error**2))) if error.size else 0.0 for error in errors),
        max(float(np.abs(error).max(initial=0.0)) for error in errors),
    )
    return GoldenSet(
        name=f"test_data_set_{number}",
        kind=kind,
        inputs={INPUT.name: x},
        reference={OUTPUT.name: reference},
        noise={OUTPUT.name: noise},
    )


def draw_golden_sets(weights: Weights) -> list[GoldenSet]:
    rng = np.random.default_rng(1)

    def images(batch: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal((batch, 3, 12, 12)).astype(np.float32)

    sets = [("normal x1", images(1)), ("normal x1", images(2)), ("normal x50", 50 * images(5))]
    sets += [("zeros", np.zeros((1, 3, 12, 12), np.float32))]
    for kind, value in (("NaN", np.nan), ("+Inf", np.inf), ("-Inf", -np.inf)):
        x = images(1)
        x[0, 1, 5, 5] = value
        sets.append((f"{kind} pixel", x))
    return [golden_set(i, kind, x, weights) for i, (kind, x) in enumerate(sets)]


@pytest.fixture(scope="session")
def weights() -> Weights:
    return draw_weights()


@pytest.fixture(scope="session")
def golden_sets(weights: Weights) -> list[GoldenSet]:
    return draw_golden_sets(weights)


@pytest.fixture(scope="session")
def clean_bundle(
    tmp_path_factory: pytest.TempPathFactory, weights: Weights, golden_sets: list[GoldenSet]
) -> Bundle:
    """A sound bundle; a test that changes something takes ``changed_bundle``."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    folder.mkdir()
    onnx.save(network_in_onnx(weights), folder / "model.onnx")
    for golden in golden_sets:
        write_golden_set(folder / "golden", golden, "float32")
    write_manifest(folder, make_manifest(**SMALL))
    write_parity(folder, {"power": {"detected": 6, "tried": 6, "sampled_of": 6}})
    return Bundle.open(folder)


ChangeBundle = Callable[..., Bundle]


@pytest.fixture
def changed_bundle(clean_bundle: Bundle, tmp_path: Path) -> ChangeBundle:
    """Copy the bundle, change its model, and hash it again, as a wrong export would be."""

    def change(
        edit: Callable[[onnx.ModelProto], None] | None = None, **manifest: Any
    ) -> Bundle:
        folder = tmp_path / "changed"
        shutil.copytree(clean_bundle.path, folder)
        if edit is not None:
            model = onnx.load(folder / "model.onnx")
            edit(model)
            onnx.save(model, folder / "model.onnx")
        facts = {**SMALL, **manifest}
        write_manifest(folder, make_manifest(**facts))
        return Bundle.open(folder)

    return change
