"""Write what ONNX Runtime refuses, and PyTorch allows, in the way that it takes."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_letters

import numpy as np
import onnx_ir as ir

from dlzoo.export.opset.adapter import Rewrite

_BOOL, _INT32, _INT64 = ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64
_OPSET_OF_REDUCED_TRUTHS = 20
_UINT8, _DOUBLE = ir.DataType.UINT8, ir.DataType.DOUBLE


def write_within_limits(model: ir.Model) -> None:
    """Rewrite, in place, each node that no CPU kernel of ONNX Runtime takes as it is."""
    for graph in list(model.graphs()):
        for node in list(graph):
            change = _CHANGES.get(node.op_type) if node.domain == "" else None
            if change is not None:
                change(Rewrite(model, node))


def _shorten_pads_of_transposed_convolution(rewrite: Rewrite) -> None:
    """``output_padding`` from the stride on: as less padding at the end.

    ONNX Runtime takes an ``output_padding`` below the stride; PyTorch takes one below the
    dilation, too. Beyond what any input reaches the result is the bias.
    """
    extra = rewrite.attribute("output_padding")
    rank = len(extra) if extra else 0
    strides = rewrite.attribute("strides") or [1] * rank
    if not extra or all(e < s for e, s in zip(extra, strides, strict=True)):
        return
    pads = rewrite.attribute("pads") or [0] * 2 * rank
    ends = [end - e for end, e in zip(pads[rank:], extra, strict=True)]
    rewrite.drop("output_padding")
    rewrite.set_ints("pads", [*pads[:rank], *(max(0, end) for end in ends)])
    if min(ends) >= 0:
        return
    result = rewrite.node.outputs[0]
    bias = rewrite.input(2)
    reached = rewrite.add(
        "ConvTranspose",
        [rewrite.input(0), rewrite.input(1)],
        {name: rewrite.attribute(name) for name in rewrite.node.attributes},
        name="reached",
    )
    reached.type = result.type
    beyond = [0] * (4 + rank) + [max(0, -end) for end in ends]
    pads_value = rewrite.new_constant(np.array(beyond, np.int64), "pads_beyond")
    if bias is None:
        rewrite.replace_with("Pad", [reached, pads_value])
        return
    padded = rewrite.add("Pad", [reached, pads_value], name="whole", like=result)
    axes = rewrite.new_constant(np.arange(1, rank + 1), "axes_of_image")
    wide_bias = rewrite.add("Unsqueeze", [bias, axes], name="bias")
    wide_bias.type = result.type
    rewrite.replace_with("Add", [padded, wide_bias])


def _write_out_ellipsis(rewrite: Rewrite) -> None:
    """``b...,b...->b`` with letters in place of the dots: ONNX Runtime sums over no dots."""
    equation = str(rewrite.attribute("equation")).replace(" ", "")
    sides, arrow, result = equation.partition("->")
    if not arrow or "..." not in sides or "..." in result:
        return
    free = [letter for letter in ascii_letters if letter not in equation]
    terms = sides.split(",")
    ranks = [rewrite.rank(value) for value in rewrite.node.inputs]
    counts = [
        rank - len(term.replace("...", "")) for rank, term in zip(ranks, terms, strict=True)
    ]
    letters = free[: max(counts, default=0)]
    written = [
        term.replace("...", "".join(letters[len(letters) - count :]))
        for term, count in zip(terms, counts, strict=True)
    ]
    rewrite.node.attributes["equation"] = ir.AttrString(
        "equation", f"{','.join(written)}->{result}"
    )


def _choose_between_truths(rewrite: Rewrite) -> None:
    """``Where(c, a, b)`` of booleans as ``c and a or not c and b``."""
    result = rewrite.node.outputs[0]
    if result.dtype != _BOOL:
        return
    condition, first, second = (rewrite.input(index) for index in range(3))
    unless = rewrite.add("Not", [condition], name="unless", like=condition)
    one = rewrite.add("And", [condition, first], name="first", like=result)
    other = rewrite.add("And", [unless, second], name="second", like=result)
    rewrite.replace_with("Or", [one, other])


def _calculate_with_truths(rewrite: Rewrite) -> None:
    """Sums and products of booleans: or, and."""
    if rewrite.node.outputs[0].dtype == _BOOL:
        by_arithmetic = {"Add": "Or", "Max": "Or", "Mul": "And", "Min": "And"}
        rewrite.replace_with(by_arithmetic[rewrite.node.op_type], list(rewrite.node.inputs))


def _clip_whole_numbers(rewrite: Rewrite) -> None:
    """``Relu`` of whole numbers as their maximum with 0."""
    data = rewrite.input(0)
    assert data is not None
    dtype = rewrite.node.outputs[0].dtype
    if dtype is None or dtype.is_floating_point():
        return
    if dtype == _UINT8:
        rewrite.replace_with("Identity", [data])
        return
    zero = rewrite.new_constant(np.array(0, dtype.numpy()), "zero")
    rewrite.replace_with("Max", [data, zero])


def _through(carriers: dict[ir.DataType, ir.DataType]) -> Callable[[Rewrite], None]:
    """Calculate in a type that has a kernel, and go back."""

    def change(rewrite: Rewrite) -> None:
        node = rewrite.node
        first = node.inputs[0]
        assert first is not None
        carrier = carriers.get(first.dtype) if first.dtype is not None else None
        if carrier is None or len(node.outputs) != 1:
            return
        inputs = [
            _cast(rewrite, value, carrier, f"input_{index}")
            if value.dtype in carriers
            else value
            for index, value in enumerate(node.inputs)
            if value is not None
        ]
        attributes = {name: rewrite.attribute(name) for name in node.attributes}
        wide = rewrite.add(node.op_type, inputs, attributes, name="wide", like=node.outputs[0])
        wide.type = ir.TensorType(carrier)
        target = node.outputs[0].dtype
        assert target is not None
        rewrite.replace_with("Cast", [wide])
        node.attributes["to"] = ir.AttrInt64("to", int(target))

    return change


def _reduce_truths(rewrite: Rewrite) -> None:
    """The largest and smallest of booleans, which came with opset 20."""
    if rewrite.model.opset_imports[""] < _OPSET_OF_REDUCED_TRUTHS:
        _through({_BOOL: _INT32})(rewrite)


def _raise_to_powers(rewrite: Rewrite) -> None:
    """Bases and exponents that are bytes or booleans, as numbers that have a kernel."""
    base, exponent = rewrite.input(0), rewrite.input(1)
    assert base is not None and exponent is not None
    if base.dtype == _UINT8:
        _through({_UINT8: _INT64})(rewrite)
    elif exponent.dtype in (_UINT8, _BOOL) and base.dtype is not None:
        rewrite.node.replace_input_with(1, _cast(rewrite, exponent, base.dtype, "exponent"))


def _index_by_int64(rewrite: Rewrite) -> None:
    """``GatherND`` and ``ScatterND`` take places of one type."""
    places = rewrite.input(1)
    if places is not None and places.dtype not in (None, _INT64):
        rewrite.node.replace_input_with(1, _cast(rewrite, places, _INT64, "places"))


def _cast(rewrite: Rewrite, value: ir.Value, to: ir.DataType, name: str) -> ir.Value:
    cast = rewrite.add("Cast", [value], {"to": int(to)}, name=name)
    cast.shape, cast.type = value.shape, ir.TensorType(to)
    return cast


_CHANGES: dict[str, Callable[[Rewrite], None]] = {
    "ConvTranspose": _shorten_pads_of_transposed_convolution,
    "Einsum": _write_out_ellipsis,
    "Where": _choose_between_truths,
    **dict.fromkeys(("Add", "Mul", "Max", "Min"), _calculate_with_truths),
    "Relu": _clip_whole_numbers,
    **dict.fromkeys(("Neg", "MatMul"), _through({_UINT8: _INT32})),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), _reduce_truths),
    "MaxPool": _through({_INT32: _DOUBLE, _INT64: _DOUBLE}),
    "Pow": _raise_to_powers,
    **dict.fromkeys(("GatherND", "ScatterND"), _index_by_int64),
}
