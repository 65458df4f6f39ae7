"""Small bundles to serve, made by hand: their answers are known without PyTorch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dlzoo.runtime.bundle.bundle import Bundle, write_manifest, write_parity
from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor, write_golden_set
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from tests.support.manifests import make_manifest

Array = np.ndarray[Any, Any]

#: The protocol's datatypes that ONNX Runtime takes from NumPy, and NumPy's names of them.
NUMERIC_DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


#: What a page shows of the network.
CARD = {"summary": "A network for tests.", "num_parameters": 2}


def write_bundle(
    folder: Path, model: onnx.ModelProto, manifest: Manifest, golden: list[GoldenSet]
) -> Bundle:
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    for one in golden:
        write_golden_set(folder / "golden", one, "float32")
    write_manifest(folder, manifest)
    write_parity(
        folder,
        {
            "verdict": "pass",
            "power": {"detected": 1, "tried": 1, "sampled_of": 1},
            "candidates": [{"rho2": 0.5}],
        },
    )
    return Bundle.open(folder)


def every_dtype_bundle(folder: Path) -> Bundle:
    """One input and output of every dtype; each output is its input."""
    inputs = tuple(
        TensorSpec(name=f"{name}_in", dtype=dtype, dims=("batch", 2))
        for name, dtype in NUMERIC_DATATYPES.items()
    )
    outputs = tuple(
        TensorSpec(name=f"{name}_out", dtype=dtype, dims=("batch", 2))
        for name, dtype in NUMERIC_DATATYPES.items()
    )

    def info(spec: TensorSpec) -> onnx.ValueInfoProto:
        element_type = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
        return helper.make_tensor_value_info(spec.name, element_type, spec.dims)

    nodes = [
        helper.make_node("Identity", [f"{name}_in"], [f"{name}_out"], name=name)
        for name in NUMERIC_DATATYPES
    ]
    graph = helper.make_graph(
        nodes, "every_dtype", [info(s) for s in inputs], [info(s) for s in outputs]
    )
    golden = []
    for batch in (1, 2, 3):
        values = {
            name: (np.arange(batch * 2).reshape(batch, 2) % 2).astype(dtype)
            for name, dtype in NUMERIC_DATATYPES.items()
        }
        golden.append(
            GoldenSet(
                name=f"test_data_set_{batch}",
                kind="ones",
                inputs={f"{name}_in": array for name, array in values.items()},
                reference={f"{n}_out": a.astype(np.float64) for n, a in values.items()},
                noise={f"{n}_out": NoiseFloor(0.0, 0.0) for n in values},
            )
        )
    manifest = make_manifest("every_dtype", inputs, outputs, card=CARD)
    return write_bundle(folder, _model(graph), manifest, golden)


def mean_bundle(
    folder: Path,
    *,
    name: str = "mean",
    scale: float = 1.0,
    size: int = 8,
    work: int = 0,
    width: int = 512,
    **changes: Any,
) -> Bundle:
    """Grey images [batch, 1, size, size] to two scores: (scale · mean, -scale · mean).

    ``work`` matrix products of ``width`` x ``width`` per sample make it slow.
    """
    inputs = (TensorSpec(name="image", dtype="float32", dims=("batch", 1, size, size)),)
    outputs = (TensorSpec(name="scores", dtype="float32", dims=("batch", 2)),)
    weight = np.full((size * size, 2), scale / size**2, np.float32)
    weight[:, 1] *= -1
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "weight"], ["answer"], name="mean"),
    ]
    initializers = [numpy_helper.from_array(weight, "weight")]
    last = "answer"
    if work:
        # batch x width x width zeros times a matrix, again and again: nothing is added, time passes.
        rng = np.random.default_rng(0)
        initializers += [
            numpy_helper.from_array(rng.random((width, width), np.float32), "matrix"),
            numpy_helper.from_array(np.zeros((1, width, width), np.float32), "zeros"),
            numpy_helper.from_array(np.array([1, 2]), "axes"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
        ]
        nodes += [
            helper.make_node("ReduceSum", ["answer", "one"], ["sum"], name="sum", keepdims=1),
            helper.make_node("Unsqueeze", ["sum", "last"], ["sum3"], name="sum3"),
            helper.make_node("Mul", ["sum3", "zeros"], ["m0"], name="m0"),
        ]
        initializers.append(numpy_helper.from_array(np.array([1]), "one"))
        for i in range(work):
            nodes.append(
                helper.make_node("MatMul", [f"m{i}", "matrix"], [f"m{i + 1}"], name=f"m{i}x")
            )
        nodes += [
            helper.make_node(
                "ReduceSum", [f"m{work}", "last"], ["rows"], name="rows", keepdims=0
            ),
            helper.make_node("ReduceSum", ["rows", "one"], ["zero"], name="zero", keepdims=1),
            helper.make_node("Add", ["answer", "zero"], ["scores"], name="add"),
        ]
    else:
        nodes.append(helper.make_node("Identity", [last], ["scores"], name="scores"))
    float_type = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", float_type, inputs[0].dims)],
        [helper.make_tensor_value_info("scores", float_type, outputs[0].dims)],
        initializers,
    )
    rng = np.random.default_rng(1)
    golden = []
    for batch in (1, 2, 3):
        x = rng.standard_normal((batch, 1, size, size)).astype(np.float32)
        mean = x.reshape(batch, -1).astype(np.float64) @ weight.astype(np.float64)
        # The error of float32 sums of so many numbers, in any order.
        noise = float(np.finfo(np.float32).eps * np.abs(x).mean() * scale)
        golden.append(
            GoldenSet(
                name=f"test_data_set_{batch}",
                kind="normal x1",
                inputs={"image": x},
                reference={"scores": mean},
                noise={"scores": NoiseFloor(noise, noise)},
            )
        )
    facts: dict[str, Any] = {
        "preprocessing": {
            "color": "L",
            "crop_size": [size, size],
            "interpolation": "bilinear",
            "mean": [0.5],
            "resize_size": size,
            "std": [0.05],
        },
        "labels": ("bright", "dark"),
    }
    manifest = make_manifest(name, inputs, outputs, **{"card": CARD, **facts, **changes})
    return write_bundle(folder, _model(graph), manifest, golden)


def break_model(folder: Path, *, hashed: bool) -> None:
    """Change a bundle's weights; with ``hashed`` its manifest agrees, as a wrong export's would."""
    model = onnx.load(folder / "model.onnx")
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, "weight"))
    onnx.save(model, folder / "model.onnx")
    if hashed:
        write_manifest(folder, Bundle.open(folder).manifest)


def binary_request(inputs: dict[str, tuple[str, Array]], **document: Any) -> tuple[bytes, int]:
    """A request's body with binary tensors, and how many bytes of it are JSON."""
    entries = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, (datatype, array) in inputs.items()
    ]
    head = json.dumps({"inputs": entries, **document}).encode()
    return head + b"".join(array.tobytes() for _, array in inputs.values()), len(head)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
