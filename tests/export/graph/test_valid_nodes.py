"""Every node is one that its opset has: operators, attributes, their values, types."""

import onnx
import onnx.defs
import onnx_ir as ir
import pytest

from dlzoo.export.graph.valid_nodes import (
    _VALUES,
    invalid_nodes,
    known_values,
    version_of_value,
)


def model_of(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


@pytest.mark.parametrize(
    ("opset", "signature", "node", "problem"),
    [
        (
            18,
            "(float[2, 3] x, int64[4] pads) => (float[2, 5] y)",
            'y = Pad<mode = "wrap">(x, pads)',
            "Pad () has mode = 'wrap', which opset 18 does not have.",
        ),
        (
            19,
            "(float[2, 3] x, int64[4] pads) => (float[2, 5] y)",
            'y = Pad<mode = "wrap">(x, pads)',
            "",
        ),
        (
            16,
            "(float[2, 3] x, int64[2, 3] i, float[2, 3] u) => (float[2, 3] y)",
            'y = ScatterElements<reduction = "max">(x, i, u)',
            "ScatterElements () has reduction = 'max', which opset 16 does not have.",
        ),
        (
            20,
            "(float[1, 1, 4, 4] x, float[1, 4, 4, 2] g) => (float[1, 1, 4, 4] y)",
            'y = GridSample<mode = "bilinear">(x, g)',
            "GridSample () has mode = 'bilinear', which opset 20 does not have.",
        ),
        (
            18,
            "(float[1, 1, 4, 4, 4] x, float[1, 4, 4, 4, 3] g) => (float[1, 1, 4, 4, 4] y)",
            'y = GridSample<mode = "bilinear">(x, g)',
            "GridSample () samples a volume, which came with opset 20.",
        ),
        (
            17,
            "(float[2] x) => (float[2] y)",
            "y = Mish(x)",
            "Mish () is not an operator of opset 17.",
        ),
        (
            17,
            "(float[2, 3] x, int64[1] a) => (float[2, 1] y)",
            "y = ReduceMean(x, a)",
            "ReduceMean () has 2 inputs, which opset 17 does not have.",
        ),
        (
            17,
            "(float[1, 1, 4] x) => (float[1, 1, 2] y)",
            "y = AveragePool<kernel_shape = [2], dilations = [2]>(x)",
            "AveragePool () has the attribute dilations, which opset 17 does not have.",
        ),
        (
            12,
            "(bfloat16[2] x) => (bfloat16[2] y)",
            "y = Neg(x)",
            "Neg () has tensor(bfloat16) as X, which opset 12 does not have.",
        ),
    ],
)
def test_problem_is_named(opset: int, signature: str, node: str, problem: str) -> None:
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ {node} }}'
    problems = list(invalid_nodes(model_of(text)))
    assert (problems[0] if problems else "") == problem


def test_listed_values_are_in_the_documentation_of_their_opset() -> None:
    for (op_type, attribute), by_opset in _VALUES.items():
        for opset, values in by_opset.items():
            schema = onnx.defs.get_schema(op_type, max(opset, 7))
            text = str(schema.attributes[attribute].description) + str(schema.doc)
            assert all(value in text for value in values if value != "stretch"), (
                op_type,
                opset,
            )


def test_versions_of_values() -> None:
    assert version_of_value("Pad", "mode", "wrap") == 19
    assert version_of_value("Pad", "mode", "mirror") is None
    assert known_values("Pad", "value", 19) is None
