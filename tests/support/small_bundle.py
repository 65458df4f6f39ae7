"""A small sound bundle that is made in milliseconds: ONNX by hand, answers in float64 NumPy."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dlzoo.runtime.bundle.bundle import Bundle, write_manifest, write_parity
from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor, write_golden_set
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from tests.support.manifests import make_manifest

# Shape legend: N batch, C channels, H and W image height and width, K classes.
NUM_CLASSES = 5
PREPROCESSING = {
    "color": "RGB",
    "resize_size": 10,
    "crop_size": [8, 8],
    "interpolation": "bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}


def small_bundle(
    folder: Path, *, batch: int | str = "batch", custom_op: bool = False, **changes: Any
) -> Bundle:
    """Write a bundle: 2x2 maxima, their mean over each channel, a linear layer, five classes.

    With ``custom_op`` the means go through ``dlzoo::Mish``, whose body the model carries.
    """
    rng = np.random.default_rng(0)
    weight_KC = rng.standard_normal((NUM_CLASSES, 3)).astype(np.float32)
    bias_K = rng.standard_normal(NUM_CLASSES).astype(np.float32)
    folder.mkdir(parents=True)
    onnx.save(_model(weight_KC, bias_K, batch, custom_op), folder / "model.onnx")
    sizes = (1, 2, 3) if isinstance(batch, str) else (batch,)
    for number, size in enumerate(sizes):
        x_NCHW = rng.standard_normal((size, 3, 8, 8)).astype(np.float32)
        golden = _golden(number, f"normal x{size}", x_NCHW, weight_KC, bias_K, custom_op)
        write_golden_set(folder / "golden", golden, "float32")
    x_NCHW = rng.standard_normal((sizes[0], 3, 8, 8)).astype(np.float32)
    x_NCHW[0, 1, 3, 3] = np.inf
    golden = _golden(len(sizes), "+Inf pixel", x_NCHW, weight_KC, bias_K, custom_op)
    write_golden_set(folder / "golden", golden, "float32")
    facts: dict[str, Any] = {
        "preprocessing": PREPROCESSING,
        "labels": ("cat", "dog", "owl", "red fox", "emu"),
        "custom_ops": ("dlzoo::Mish",) if custom_op else (),
    }
    manifest = make_manifest(
        "small",
        (TensorSpec(name="image", dtype="float32", dims=(batch, 3, 8, 8)),),
        (TensorSpec(name="logits", dtype="float32", dims=(batch, NUM_CLASSES)),),
        **{**facts, **changes},
    )
    write_manifest(folder, manifest)
    power = {"detected": 2, "tried": 2, "sampled_of": 2}
    write_parity(folder, {"verdict": "pass", "power": power})
    return Bundle.open(folder)


def _network(x_NCHW: Any, weight_KC: Any, bias_K: Any, custom_op: bool) -> Any:
    n, c, h, w = x_NCHW.shape
    maxima = x_NCHW.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))
    mean_NC = maxima.mean((2, 3), dtype=x_NCHW.dtype)
    if custom_op:
        with np.errstate(invalid="ignore"):
            mean_NC = mean_NC * np.tanh(np.log1p(np.exp(mean_NC)))
    with np.errstate(invalid="ignore"):
        return mean_NC @ weight_KC.T.astype(x_NCHW.dtype) + bias_K.astype(x_NCHW.dtype)


def _golden(
    number: int, kind: str, x_NCHW: Any, weight_KC: Any, bias_K: Any, custom_op: bool
) -> GoldenSet:
    reference = _network(x_NCHW.astype(np.float64), weight_KC, bias_K, custom_op)
    finite = np.isfinite(reference)
    error = _network(x_NCHW, weight_KC, bias_K, custom_op)[finite] - reference[finite]
    noise = NoiseFloor(
        float(np.sqrt(np.mean(error**2))) if error.size else 0.0,
        float(np.abs(error).max(initial=0.0)),
    )
    return GoldenSet(
        name=f"test_data_set_{number}",
        kind=kind,
        inputs={"image": x_NCHW},
        reference={"logits": reference},
        noise={"logits": noise},
    )


def _model(weight_KC: Any, bias_K: Any, batch: int | str, custom_op: bool) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MaxPool", ["image"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ReduceMean", ["a", "axes"], ["b"], keepdims=0),
        helper.make_node("Gemm", ["c", "weight", "bias"], ["logits"], transB=1),
    ]
    middle = helper.make_node("Identity", ["b"], ["c"])
    functions = []
    opsets = [helper.make_opsetid("", 20)]
    if custom_op:
        middle = helper.make_node("Mish", ["b"], ["c"], domain="dlzoo")
        body = [
            helper.make_node("Softplus", ["x"], ["s"]),
            helper.make_node("Tanh", ["s"], ["t"]),
            helper.make_node("Mul", ["x", "t"], ["y"]),
        ]
        functions = [helper.make_function("dlzoo", "Mish", ["x"], ["y"], body, opsets)]
        opsets = [*opsets, helper.make_opsetid("dlzoo", 1)]
    nodes.insert(2, middle)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [batch, 3, 8, 8])],
        [
            helper.make_tensor_value_info(
                "logits", onnx.TensorProto.FLOAT, [batch, NUM_CLASSES]
            )
        ],
        [
            numpy_helper.from_array(weight_KC, "weight"),
            numpy_helper.from_array(bias_K, "bias"),
            numpy_helper.from_array(np.array([2, 3]), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
