"""Functions of domain ``dlzoo`` are attached where they are used, fit, and compute the operator."""

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest

from dlzoo.errors import ExportError
from dlzoo.export.lowering.function_body import attach_functions, function_body
from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
from dlzoo.runtime.session.session import open_session
from tests.support.native_kernels import (
    SPECIAL_VALUES,
    mish_float32_error,
    mish_float64,
    mish_model,
)


def model_of(
    *nodes: ir.Node, opset: int = 20, dtype: ir.DataType = ir.DataType.FLOAT
) -> ir.Model:
    """A model whose nodes each read the one input."""
    x = nodes[0].inputs[0]
    assert x is not None
    x.type, x.shape = ir.TensorType(dtype), ir.Shape(["n"])
    outputs = [output for node in nodes for output in node.outputs]
    for number, output in enumerate(outputs):
        output.name, output.type, output.shape = f"y{number}", x.type, x.shape
    graph = ir.Graph([x], outputs, nodes=nodes, opset_imports={"": opset}, name="g")
    return ir.Model(graph, ir_version=7)


def mish_node(x: ir.Value | None = None) -> ir.Node:
    return ir.Node("dlzoo", "Mish", [x or ir.val("x")], name="mish")


def test_one_body_serves_every_node_and_a_second_call_changes_nothing() -> None:
    first = mish_node()
    model = model_of(first, mish_node(first.inputs[0]))
    assert attach_functions(model) == ("dlzoo::Mish",)
    once = ir.to_proto(model).SerializeToString()
    assert attach_functions(model) == ("dlzoo::Mish",)
    assert ir.to_proto(model).SerializeToString() == once
    assert model.opset_imports == {"": 20, "dlzoo": 1}
    assert list(model.functions) == [("dlzoo", "Mish", "")]
    assert model.ir_version == 8
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_model_without_such_nodes_stays_as_it_is() -> None:
    model = model_of(ir.Node("", "Relu", [ir.val("x")]))
    before = ir.to_proto(model).SerializeToString()
    assert attach_functions(model) == ()
    assert ir.to_proto(model).SerializeToString() == before


def test_the_header_names_the_function_and_counts_its_nodes(tmp_path: Path) -> None:
    header = read_onnx_header(mish_model(tmp_path / "m.onnx", num_nodes=3))
    assert header.functions == ("dlzoo::Mish",)
    assert header.num_nodes_by_op["dlzoo::Mish"] == 3
    assert header.num_nodes_by_op["Exp"] == 1
    bare = read_onnx_header(mish_model(tmp_path / "bare.onnx", with_body=False))
    assert bare.functions == () and bare.num_nodes_by_op == {"dlzoo::Mish": 1}


@pytest.mark.parametrize("opset", [11, 13, 15, 18, 20, 24])
def test_the_body_is_right_in_onnx_own_evaluator(tmp_path: Path, opset: int) -> None:
    path = mish_model(tmp_path / "m.onnx", opset=opset)
    evaluator = onnx.reference.ReferenceEvaluator(onnx.load(path))
    # NumPy warns where ONNX Runtime is silent: overflow is what min is for, -Inf * 0 is NaN.
    with np.errstate(all="ignore"):
        (y,) = evaluator.run(None, {"x": SPECIAL_VALUES})
    reference = mish_float64(SPECIAL_VALUES)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(reference))
    finite = np.isfinite(reference)
    allowed = 3 * mish_float32_error(SPECIAL_VALUES, reference)[finite]
    assert (np.abs(y[finite] - reference[finite]) <= allowed).all()


def test_a_body_of_the_users_own_is_taken() -> None:
    body = ir.serde.deserialize_function(
        onnx.parser.parse_function(
            '<opset_import: ["" : 20], domain: "dlzoo"> Twice (X) => (Y) { Y = Add (X, X) }'
        )
    )
    model = model_of(ir.Node("dlzoo", "Twice", [ir.val("x")]))
    assert attach_functions(model, {"Twice": body}) == ("dlzoo::Twice",)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_body_that_calls_another_function_brings_that_along(tmp_path: Path) -> None:
    body = ir.serde.deserialize_function(
        onnx.parser.parse_function(
            '<opset_import: ["" : 20, "dlzoo" : 1], domain: "dlzoo"> '
            "Mash (X) => (Y) { Z = dlzoo.Mish (X) Y = Neg (Z) }"
        )
    )
    model = model_of(ir.Node("dlzoo", "Mash", [ir.val("x")]))
    used = ("dlzoo::Mash", "dlzoo::Mish")
    assert attach_functions(model, {"Mash": body}) == used
    assert {key[1] for key in model.functions} == {"Mash", "Mish"}
    onnx.save(ir.to_proto(model), tmp_path / "m.onnx")
    assert read_onnx_header(tmp_path / "m.onnx").functions == used
    x = np.array([1.0], np.float32)
    (y,) = onnx.reference.ReferenceEvaluator(onnx.load(tmp_path / "m.onnx")).run(
        None, {"x": x}
    )
    np.testing.assert_allclose(y, [-0.8650984], rtol=1e-6)


def test_a_body_that_calls_itself_is_one_line() -> None:
    body = ir.serde.deserialize_function(
        onnx.parser.parse_function(
            '<opset_import: ["" : 20, "dlzoo" : 1], domain: "dlzoo"> '
            "Mash (X) => (Y) { Y = dlzoo.Mash (X) }"
        )
    )
    with pytest.raises(ExportError, match=r"dlzoo::Mash calls dlzoo::Mash in a circle"):
        attach_functions(model_of(ir.Node("dlzoo", "Mash", [ir.val("x")])), {"Mash": body})


@pytest.mark.parametrize("library", ["native", "off"])
def test_nodes_in_subgraphs_are_found(
    tmp_path: Path, native_library: Path, library: str
) -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 20, "dlzoo" : 1]> '
            "g (bool c, float[n] x) => (float[n] y) { y = If (c) <"
            "then_branch = t () => (float[n] a) { a = dlzoo.Mish (x) }, "
            "else_branch = e () => (float[n] b) { z = Neg (x) b = dlzoo.Mish (z) }> }"
        )
    )
    assert attach_functions(model) == ("dlzoo::Mish",)
    onnx.save(ir.to_proto(model), tmp_path / "m.onnx")
    choice = native_library if library == "native" else library
    session = open_session(tmp_path / "m.onnx", native_library=choice)
    assert set(session.custom_ops.values()) == {
        "native" if library == "native" else "function"
    }
    y = session.run({"c": np.array(False), "x": np.array([-1.0], np.float32)})["y"]
    np.testing.assert_allclose(y, [0.8650984], rtol=1e-6)


def test_an_operator_without_a_body_is_one_line() -> None:
    with pytest.raises(ExportError) as caught:
        attach_functions(model_of(ir.Node("dlzoo", "Mash", [ir.val("x")])))
    assert str(caught.value) == (
        "Domain dlzoo has no function 'Mash', expected one of Mish. Choose another spelling for "
        "that layer."
    )


def test_a_node_that_does_not_fit_its_body_is_one_line() -> None:
    x = ir.val("x")
    with pytest.raises(
        ExportError, match=r"has 2 inputs, 1 outputs and the attributes \[\], its"
    ):
        attach_functions(model_of(ir.Node("dlzoo", "Mish", [x, x], name="mish")))
    x, beta = ir.val("x"), ir.AttrFloat32("beta", 2.0)
    with pytest.raises(ExportError, match=r"'mish', dlzoo::Mish, .* attributes \['beta'\]"):
        attach_functions(model_of(ir.Node("dlzoo", "Mish", [x], [beta], name="mish")))


def test_attributes_must_be_those_of_the_body() -> None:
    text = (
        '<opset_import: ["" : 20], domain: "dlzoo"> Scale <a, b: float = 1.0> (X) => (Y) '
        "{ c = Constant <value_float: float = @a> () d = Constant <value_float: float = @b> () "
        "e = Mul (c, d) Y = Mul (X, e) }"
    )
    body = ir.serde.deserialize_function(onnx.parser.parse_function(text))

    def attach(*names: str) -> None:
        attributes = [ir.AttrFloat32(name, 2.0) for name in names]
        node = ir.Node("dlzoo", "Scale", [ir.val("x")], attributes)
        attach_functions(model_of(node), {"Scale": body.clone()})

    attach("a")
    attach("a", "b")
    for names in ((), ("b",), ("a", "c")):
        with pytest.raises(ExportError, match=r"its body takes 1, 1 and \['a', 'b'\]"):
            attach(*names)


def test_a_body_in_another_opset_is_one_line() -> None:
    model = model_of(mish_node())
    with pytest.raises(ExportError, match="has a body in opset 18, the model is in opset 20"):
        attach_functions(model, {"Mish": function_body("Mish", 18)})


@pytest.mark.parametrize("dtype", [ir.DataType.DOUBLE, ir.DataType.FLOAT16])
def test_below_opset_15_only_float32_is_taken(dtype: ir.DataType) -> None:
    with pytest.raises(ExportError) as caught:
        attach_functions(model_of(mish_node(), opset=14, dtype=dtype))
    assert str(caught.value) == (
        f"dlzoo::Mish is used with {dtype}, expected FLOAT below opset 15. Export with `opset=15` "
        "or later."
    )


def test_no_body_is_right_for_16_and_64_bits_at_once() -> None:
    with pytest.raises(ExportError, match="DOUBLE, FLOAT16 in one model"):
        function_body("Mish", 20, {ir.DataType.FLOAT16, ir.DataType.DOUBLE})
