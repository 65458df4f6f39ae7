"""Functions of domain ``dlzoo``: an operator's body in plain ONNX, carried in the model itself.

A node of domain ``dlzoo`` runs by its native kernel where the library is loaded, and by this body
everywhere else: one file, two speeds. ``torch.onnx`` inlines every function it is given, so the
body is attached after the export.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from dlzoo.errors import ExportError
from dlzoo.export.bundle import CUSTOM_DOMAIN

#: The version of domain ``dlzoo`` that its functions and kernels belong to.
DOMAIN_VERSION = 1
#: Functions in a model came with IR version 8. Source: onnx/docs/Versioning.md.
LOWEST_IR_VERSION = 8
#: CastLike, which gives a constant the input's type, came with opset 15.
_CAST_LIKE_OPSET = 15
#: Computed in float32: float16 ends at 65504, and each step would round to 8 or 11 bits.
_HALF_TYPES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


@dataclass(frozen=True)
class FunctionBody:
    """A function of x in onnx.parser's syntax: lines that end with ``y``, and its constants."""

    constants: Mapping[str, float]
    lines: tuple[str, ...]


#: Operator -> its body.
#:
#: Mish(x) = x tanh(softplus(x)) = x n / (n + 2), n = e (e + 2), e = exp(min(x, 20)): no term
#: cancels. The shorter x (1 - s^2) / (1 + s^2) with s = sigmoid(-x) loses up to every digit
#: where x is negative: 1 - s^2 is a small difference, and ONNX Runtime's Sigmoid is exact only
#: absolutely. Mish(-Inf) is NaN, as in PyTorch.
BODIES = {
    "Mish": FunctionBody(
        constants={"saturation": 20.0, "two": 2.0},
        lines=(
            "bounded = Min (x, saturation)",
            "e = Exp (bounded)",
            "e_plus_two = Add (e, two)",
            "n = Mul (e, e_plus_two)",
            "n_plus_two = Add (n, two)",
            "quotient = Div (n, n_plus_two)",
            "y = Mul (x, quotient)",
        ),
    ),
}


def function_body(
    name: str, opset: int, dtypes: Collection[ir.DataType] = (ir.DataType.FLOAT,)
) -> ir.Function:
    """The function of domain ``dlzoo`` with that name, written in ``opset`` for ``dtypes``.

    Raises:
        ExportError: no function has that name, or none is right for all those types.
    """
    if name not in BODIES:
        raise ExportError(
            f"Domain {CUSTOM_DOMAIN} has no function {name!r}, expected one of "
            f"{', '.join(sorted(BODIES))}. Choose another spelling for that layer."
        )
    half, wide = _HALF_TYPES & set(dtypes), set(dtypes) - _HALF_TYPES - {ir.DataType.FLOAT}
    listed = ", ".join(sorted(str(dtype) for dtype in dtypes))
    if opset < _CAST_LIKE_OPSET and (half or wide):
        raise ExportError(
            f"{CUSTOM_DOMAIN}::{name} is used with {listed}, expected FLOAT below opset "
            f"{_CAST_LIKE_OPSET}. Export with --opset {_CAST_LIKE_OPSET} or later."
        )
    if half and wide:
        raise ExportError(
            f"{CUSTOM_DOMAIN}::{name} is used with {listed} in one model, expected 16 bits with "
            "nothing wider than FLOAT. Choose another spelling for that layer."
        )
    lines = _lines(
        BODIES[name], generic=not half and opset >= _CAST_LIKE_OPSET, half=bool(half)
    )
    header = f'<opset_import: ["" : {opset}], domain: "{CUSTOM_DOMAIN}">'
    text = "\n".join([header, f"{name} (X) => (Y) {{", *lines, "}"])
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))


def _lines(body: FunctionBody, *, generic: bool, half: bool) -> list[str]:
    """The body's lines between the function's X and Y, with its constants before them."""
    lines = ["x = Cast <to = 1> (X)"] if half else []
    for name, value in body.constants.items():
        constant = f"Constant <value = float {{{value}}}> ()"
        if generic:
            lines += [f"{name}_float = {constant}", f"{name} = CastLike ({name}_float, X)"]
        else:
            lines.append(f"{name} = {constant}")
    lines += body.lines
    if half:
        return [*lines, "Y = CastLike (y, X)"]
    return [re.sub(r"\bx\b", "X", re.sub(r"\by\b", "Y", line)) for line in lines]


def attach_functions(
    model: ir.Model, functions: Mapping[str, ir.Function] | None = None
) -> tuple[str, ...]:
    """Give every node of domain ``dlzoo`` its body, and check that each has one.

    A second call changes nothing.

    Args:
        model: is changed: functions, the domain's version, and the IR version where it is too low
            for functions.
        functions: operator -> body, for operators that are not in :data:`BODIES`.

    Returns:
        The operators that the model uses, as ``dlzoo::Mish``.

    Raises:
        ExportError: an operator has no body, or a node does not fit it.
    """
    used = [node for node in model.graph.all_nodes() if node.domain == CUSTOM_DOMAIN]
    if not used:
        return ()
    opset = model.opset_imports.get("", 0)
    names = sorted({node.op_type for node in used})
    for name in names:
        key = (CUSTOM_DOMAIN, name, "")
        if key in model.functions:
            continue
        given = (functions or {}).get(name)
        dtypes = {
            value.dtype
            for node in used
            if node.op_type == name
            for value in node.inputs
            if value is not None and value.dtype is not None
        }
        model.functions[key] = given or function_body(name, opset, dtypes)
    model.opset_imports[CUSTOM_DOMAIN] = DOMAIN_VERSION
    model.ir_version = max(model.ir_version or 0, LOWEST_IR_VERSION)
    for node in used:
        _check_node(node, model.functions[CUSTOM_DOMAIN, node.op_type, ""], opset)
    return tuple(f"{CUSTOM_DOMAIN}::{name}" for name in names)


def _check_node(node: ir.Node, function: ir.Function, opset: int) -> None:
    name = f"Node {node.name!r}, {CUSTOM_DOMAIN}::{node.op_type},"
    got = (len(node.inputs), len(node.outputs), sorted(node.attributes))
    expected = (len(function.inputs), len(function.outputs), sorted(function.attributes))
    if got != expected:
        raise ExportError(
            f"{name} has {got[0]} inputs, {got[1]} outputs and the attributes {got[2]}, its body "
            f"takes {expected[0]}, {expected[1]} and {expected[2]}. Choose another spelling."
        )
    body_opset = function.opset_imports.get("")
    if body_opset != opset:
        raise ExportError(
            f"{name} has a body in opset {body_opset}, the model is in opset {opset}. "
            "Attach functions after the opset is settled."
        )
