"""Reading a graph node by node, and making models of some of its nodes, against the onnx package."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlzoo.errors import BundleError
from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.runtime.onnx_reader.onnx_nodes import OnnxNodes


@pytest.fixture(scope="module")
def small_file(small_graph: OnnxGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nodes") / "model.onnx"
    small_graph.save(path)
    return path


def model_with_a_branch() -> onnx.ModelProto:
    """``If`` whose branches read a value of the graph around them."""

    def branch(op_type: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(op_type, TensorProto.FLOAT, ["n"])
        return helper.make_graph(
            [helper.make_node(op_type, ["a"], [op_type])], op_type, [], [output]
        )

    nodes = [
        helper.make_node("Neg", ["x"], ["a"], name="negate"),
        helper.make_node(
            "If", ["flag"], ["y"], then_branch=branch("Relu"), else_branch=branch("Abs")
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "branch",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_nodes_are_those_that_onnx_reads(small_file: Path) -> None:
    expected = onnx.load(small_file).graph
    graph = OnnxNodes.read(small_file)
    got = [(n.name, n.op_type, list(n.inputs), list(n.outputs)) for n in graph.nodes]
    assert got == [(n.name, n.op_type, [*n.input], [*n.output]) for n in expected.node]
    assert graph.inputs == ["input"] and graph.outputs == ["logits"]
    for tensor in expected.initializer:
        np.testing.assert_array_equal(
            graph.initializers[tensor.name].array(), numpy_helper.to_array(tensor)
        )
    assert graph.nodes[0].module_path == "norm"
    assert graph.nodes[0].scopes[-1] == "_native_batch_norm_legit_no_training"


def test_a_tapped_model_has_the_outputs_and_no_large_weight(small_file: Path) -> None:
    graph = OnnxNodes.read(small_file)
    tapped = onnx.load_from_string(graph.tapped([graph.nodes[0].outputs[0], "logits"]))
    names = [output.name for output in tapped.graph.output]
    assert names == ["logits", graph.nodes[0].outputs[0]]
    stubs = {t.name for t in tapped.graph.initializer if t.data_location}
    assert stubs == {name for name, t in graph.initializers.items() if t.has_stub}
    assert "conv.weight" not in stubs  # 864 bytes, below a stub's size
    onnx.checker.check_model(onnx.load_from_string(graph.tapped()))


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    weight = np.arange(4096, dtype=np.float32).reshape(64, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "beside",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, ir_version=8),
        path,
        save_as_external_data=True,
        location="weights.bin",
    )
    tensor = OnnxNodes.read(path).initializers["w"]
    assert tensor.has_stub
    np.testing.assert_array_equal(tensor.array(), weight)


def test_a_segment_ends_where_it_is_told(small_file: Path) -> None:
    graph = OnnxNodes.read(small_file)
    last = graph.nodes[-1]
    nodes, inputs = graph.segment("logits", graph.nodes[-2].outputs)
    assert (nodes, inputs) == ([last], [graph.nodes[-2].outputs[0]])
    nodes, inputs = graph.segment("logits", [])
    assert (len(nodes), inputs) == (len(graph.nodes), ["input"])


def test_a_branch_reads_values_around_it(tmp_path: Path) -> None:
    path = tmp_path / "branch.onnx"
    onnx.save(model_with_a_branch(), path)
    graph = OnnxNodes.read(path)
    assert graph.nodes[1].inputs == ("flag", "a")
    assert graph.nodes[1].module_path is None and graph.nodes[1].label == "If -> y"
    nodes, inputs = graph.segment("y", [])
    assert [node.op_type for node in nodes] == ["Neg", "If"]
    assert set(inputs) == {"x", "flag"}
    arrays = {"flag": np.array(True), "a": np.ones(3, np.float32)}
    alone = onnx.load_from_string(graph.extracted([graph.nodes[1]], arrays, ["y"]))
    assert [value.name for value in alone.graph.input] == ["flag", "a"]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08\x3a\xff")
    with pytest.raises(BundleError, match="is not a sound ONNX model"):
        OnnxNodes.read(path)
