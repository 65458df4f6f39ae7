"""Writes the bad_*.onnx files beside it: run it again when a kind of damage is added.

    python tests/onnx/make_bad_models.py

Every file is damaged in one way that reaches a user: cut downloads, other formats under the
name .onnx, graphs that no runtime can run. Each must end in one clear line.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent


def sound_model(*nodes: onnx.NodeProto, opset: int = 20) -> onnx.ModelProto:
    """A linear layer and ReLU, followed by ``nodes``."""
    weights = numpy_helper.from_array(
        np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "w"
    )
    layers = [
        helper.make_node("Gemm", ["image", "w"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["y"]),
        *nodes,
    ]
    graph = helper.make_graph(
        layers,
        "bad",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weights],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )


def external(location: str, **facts: str) -> bytes:
    model = sound_model()
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        weights.external_data.add(key=key, value=value)
    return model.SerializeToString()


def changed(**fields: str) -> bytes:
    """The sound model with fields of its first node replaced."""
    model = sound_model()
    node = model.graph.node[0]
    for name, value in fields.items():
        if name == "input":
            node.input[0] = value
        else:
            setattr(node, name, value)
    return model.SerializeToString()


def without(field: str) -> bytes:
    model = sound_model()
    owner = model if field == "graph" else model.graph
    owner.ClearField(field)
    return model.SerializeToString()


def cyclic() -> bytes:
    model = sound_model()
    model.graph.node[0].input[0] = "y"
    return model.SerializeToString()


def short_weights() -> bytes:
    model = sound_model()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    return model.SerializeToString()


def bad_models() -> dict[str, bytes]:
    whole = sound_model().SerializeToString()
    return {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "one_byte_short": whole[:-1],
        "text": b"This repository keeps its weights elsewhere.\n",
        "git_lfs_pointer": (
            b"version https://git-lfs.github.com/spec/v1\n"
            b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
            b"size 12345\n"
        ),
        "html": b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n",
        "zip": b"PK\x03\x04" + bytes(60),
        "random": np.random.default_rng(0).bytes(400),
        "without_graph": without("graph"),
        "without_nodes": without("node"),
        "without_outputs": without("output"),
        "unknown_operator": changed(op_type="Gemmm"),
        "unknown_domain": changed(domain="com.example"),
        "dangling_input": changed(input="nowhere"),
        "cycle": cyclic(),
        "short_weights": short_weights(),
        "external_missing": external("bad_external_missing.data"),
        "external_escapes": external("../../pyproject.toml"),
        "external_checksum": external("make_bad_models.py", checksum="0" * 40, length="48"),
        "unsupported_opset": sound_model(opset=999).SerializeToString(),
        "external_absolute": external("/etc/hostname"),
    }


if __name__ == "__main__":
    for name, data in bad_models().items():
        (HERE / f"bad_{name}.onnx").write_bytes(data)
        print(f"bad_{name}.onnx: {len(data)} bytes")
