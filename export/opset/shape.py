"""Shape of all axes, Pad of all axes, numbers as tensors: what came before the short forms."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from dlzoo.export.opset.adapter import Rewrite, adapts


@adapts(15, "Shape")
def slice_the_shape(rewrite: Rewrite) -> None:
    """``Shape<start, end>(x)`` as Shape and Slice."""
    start, end = rewrite.attribute("start", 0), rewrite.attribute("end")
    if start == 0 and end is None:
        rewrite.drop("start")
        return
    whole = rewrite.add("Shape", [rewrite.input(0)], name="of_all_axes")
    whole.type = ir.TensorType(ir.DataType.INT64)
    last = np.iinfo(np.int64).max if end is None else end
    bounds = [
        rewrite.new_constant(np.array([number], np.int64), name)
        for name, number in (("start", start), ("end", last))
    ]
    rewrite.replace_with("Slice", [whole, *bounds])


@adapts(19, "Pad")
def wrap_by_slices(rewrite: Rewrite) -> None:
    """Circular padding: along each axis, what is at the other end is put before and behind.

    A negative pad cuts off, as in the other modes.
    """
    if rewrite.attribute("mode", "constant") != "wrap":
        return
    data, pads = rewrite.input(0), rewrite.constant(1)
    rank = rewrite.rank(data)
    assert data is not None and pads is not None
    axes = rewrite.constant(3) or [*range(rank)]
    for axis, first, last in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        name = f"axis_{axis % rank}"
        if first < 0 or last < 0:
            data = _sliced(rewrite, data, axis, max(0, -first), min(0, last), f"{name}_rest")
        parts = [data]
        if first > 0:
            parts.insert(0, _sliced(rewrite, data, axis, -first, 0, f"{name}_end"))
        if last > 0:
            # Counted in what was there before the other side was cut off.
            parts.append(_sliced(rewrite, data, axis, 0, last, f"{name}_start"))
        if len(parts) > 1:
            data = rewrite.add("Concat", parts, {"axis": axis}, name=name)
            data.type = parts[0].type
    rewrite.replace_with("Identity", [data])


def _sliced(
    rewrite: Rewrite, data: ir.Value, axis: int, start: int, end: int, name: str
) -> ir.Value:
    """``data[start:end]`` along an axis; an end of 0 is the end of the axis."""
    bounds = [
        rewrite.new_constant(np.array([number], np.int64), f"{name}_{part}")
        for part, number in (
            ("first", start),
            ("stop", end or np.iinfo(np.int64).max),
            ("axes", axis),
        )
    ]
    sliced = rewrite.add("Slice", [data, *bounds], name=name)
    sliced.type = data.type
    return sliced


@adapts(18, "Pad")
def pad_all_axes(rewrite: Rewrite) -> None:
    """Pads of some axes as pads of all, most of them 0."""
    axes, pads = rewrite.constant(3), None
    if axes is not None:
        pads = rewrite.constant(1)
        assert pads is not None
        rank = rewrite.rank(rewrite.input(0))
        full = np.zeros((2, rank), np.int64)
        full[:, [axis % rank for axis in axes]] = np.array(pads).reshape(2, -1)
        rewrite.node.replace_input_with(1, rewrite.new_constant(full.reshape(-1), "all_pads"))
    rewrite.drop_inputs_from(min(3, len(rewrite.node.inputs)))


@adapts(12, "Constant")
def write_as_tensor(rewrite: Rewrite) -> None:
    """Numbers and strings as the tensor that they make."""
    types: dict[str, type[np.generic]] = {
        "value_float": np.float32,
        "value_floats": np.float32,
    }
    types |= {"value_int": np.int64, "value_ints": np.int64}
    for name, dtype in types.items():
        number = rewrite.attribute(name)
        if number is not None:
            rewrite.drop(name)
            tensor = ir.tensor(np.array(number, dtype))
            rewrite.node.attributes["value"] = ir.AttrTensor("value", tensor)
    if any(name.startswith("value_") for name in rewrite.node.attributes):
        raise rewrite.fail("came to hold strings by themselves with opset 12")


@adapts(14, "Reshape")
def drop_allowzero(rewrite: Rewrite) -> None:
    """0 means "as it was" in both, unless ``allowzero`` is set and there is a 0.

    A shape that is computed while the graph runs has a 0 for an empty tensor alone.
    """
    has_zero = rewrite.is_constant(1) and 0 in (rewrite.constant(1) or [])
    if has_zero and rewrite.attribute("allowzero", 0):
        raise rewrite.fail("came to make empty tensors with opset 14")
    rewrite.drop("allowzero")
