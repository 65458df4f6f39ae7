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
from dlzoo.runtime.session.native_library import CUSTOM_DOMAIN

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
            f"{_CAST_LIKE_OPSET}. Export with `opset={_CAST_LIKE_OPSET}` or later."
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
    used = _own_nodes(model.graph)
    if not used:
        return ()
    opset = model.opset_imports.get("", 0)
    inputs = (value for node in used for value in node.inputs)
    dtypes = {value.dtype for value in inputs if value is not None and value.dtype is not None}
    callers: list[str] = []

    def attach(node: ir.Node) -> None:
        key = (CUSTOM_DOMAIN, node.op_type, "")
        if node.op_type in callers:
            raise ExportError(
                f"The body of {CUSTOM_DOMAIN}::{callers[0]} calls {CUSTOM_DOMAIN}::{node.op_type} "
                "in a circle, which ONNX does not know. Write it without."
            )
        if key not in model.functions:
            given = (functions or {}).get(node.op_type)
            body = given or function_body(node.op_type, opset, dtypes)
            callers.append(node.op_type)
            for inner in _own_nodes(body):  # before its caller, as onnx.reference wants them
                attach(inner)
            callers.pop()
            model.functions[key] = body
        _check_node(node, model.functions[key], opset)

    for node in used:
        attach(node)
    model.opset_imports[CUSTOM_DOMAIN] = DOMAIN_VERSION
    model.ir_version = max(model.ir_version or 0, LOWEST_IR_VERSION)
    names = sorted(name for domain, name, _ in model.functions if domain == CUSTOM_DOMAIN)
    return tuple(f"{CUSTOM_DOMAIN}::{name}" for name in names)


def _own_nodes(place: ir.Graph | ir.Function) -> list[ir.Node]:
    """Nodes of domain ``dlzoo``, those in subgraphs included."""
    return [node for node in place.all_nodes() if node.domain == CUSTOM_DOMAIN]


def _check_node(node: ir.Node, function: ir.Function, opset: int) -> None:
    name = f"Node {node.name!r}, {CUSTOM_DOMAIN}::{node.op_type},"
    got, expected = (
        (len(place.inputs), len(place.outputs), sorted(place.attributes))
        for place in (node, function)
    )
    required = {key for key, attr in function.attributes.items() if attr.value is None}
    if got[:2] != expected[:2] or not required <= set(got[2]) <= set(expected[2]):
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
