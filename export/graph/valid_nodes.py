"""Whether every node is one that its opset has: by ONNX's schemas, attribute values too.

``onnx.checker`` knows attributes and types, but not which values of a text attribute an opset has:
``Pad`` with ``mode="wrap"`` passes it at opset 18, and came with 19.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx.defs
import onnx_ir as ir

#: Values of text attributes, by operator and attribute: the opset from which on these are all
#: that there are. Source: the operators' changelog, onnx/docs/Changelog.md.
_VALUES: dict[tuple[str, str], dict[int, tuple[str, ...]]] = {
    ("Pad", "mode"): {
        1: ("constant", "reflect", "edge"),
        19: ("constant", "reflect", "edge", "wrap"),
    },
    ("Resize", "mode"): {10: ("nearest", "linear"), 11: ("nearest", "linear", "cubic")},
    ("Resize", "coordinate_transformation_mode"): {
        11: (
            *("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"),
            *("tf_half_pixel_for_nn", "tf_crop_and_resize"),
        ),
        13: (
            *("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"),
            "tf_crop_and_resize",
        ),
        19: (
            *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners"),
            *("asymmetric", "tf_crop_and_resize"),
        ),
    },
    ("Resize", "nearest_mode"): {
        11: ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    },
    ("Resize", "keep_aspect_ratio_policy"): {18: ("stretch", "not_larger", "not_smaller")},
    ("ScatterElements", "reduction"): {
        16: ("none", "add", "mul"),
        18: ("none", "add", "mul", "max", "min"),
    },
    ("ScatterND", "reduction"): {
        16: ("none", "add", "mul"),
        18: ("none", "add", "mul", "max", "min"),
    },
    ("GridSample", "mode"): {
        16: ("bilinear", "nearest", "bicubic"),
        20: ("linear", "nearest", "cubic"),
    },
    ("GridSample", "padding_mode"): {16: ("zeros", "border", "reflection")},
    ("RoiAlign", "mode"): {10: ("avg", "max")},
    ("RoiAlign", "coordinate_transformation_mode"): {16: ("half_pixel", "output_half_pixel")},
    ("Gelu", "approximate"): {20: ("none", "tanh")},
    ("DepthToSpace", "mode"): {11: ("DCR", "CRD")},
    ("BitShift", "direction"): {11: ("LEFT", "RIGHT")},
    **{
        (op_type, "direction"): {1: ("forward", "reverse", "bidirectional")}
        for op_type in ("RNN", "LSTM", "GRU")
    },
    **{
        (op_type, "auto_pad"): {1: ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")}
        for op_type in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
    },
}
#: GridSample was for images alone, [N, C, H, W], before it took volumes.
_RANK_OF_IMAGES, _OPSET_OF_VOLUMES = 4, 20


def known_values(op_type: str, attribute: str, opset: int) -> tuple[str, ...] | None:
    """The values that a text attribute can have at an opset; None where that is not listed."""
    by_opset = _VALUES.get((op_type, attribute), {})
    versions = [version for version in by_opset if version <= opset]
    return by_opset[max(versions)] if versions else None


def version_of_value(op_type: str, attribute: str, value: str) -> int | None:
    """The opset with which a value came; None where there is no such value."""
    by_opset = _VALUES.get((op_type, attribute), {})
    return min(
        (version for version, known in by_opset.items() if value in known), default=None
    )


def newer_values(node: ir.Node, opset: int) -> list[tuple[str, str]]:
    """The text attributes of a node whose values the opset does not have, with those values."""
    if node.domain != "":
        return []
    found = []
    for name, attribute in node.attributes.items():
        known = known_values(node.op_type, name, opset)
        if known is not None and attribute.value not in known:
            found.append((name, str(attribute.value)))
    return found


def invalid_nodes(model: ir.Model) -> Iterator[str]:
    """What is wrong with a node at its opset, a sentence each."""
    opset = model.opset_imports.get("", 1)
    places: list[ir.Graph | ir.Function] = [*model.graphs(), *model.functions.values()]
    for place in places:
        for node in place:
            if node.domain == "":
                yield from _problems_of(node, opset)


def _problems_of(node: ir.Node, opset: int) -> Iterator[str]:
    title = f"{node.op_type} ({node.name})"
    try:
        # Typed as Any: onnx's stubs lack some of it.
        schema: Any = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        yield f"{title} is not an operator of opset {opset}."
        return
    if schema.deprecated:
        yield f"{title} is deprecated at opset {opset}."
    for name in node.attributes:
        if name not in schema.attributes:
            yield f"{title} has the attribute {name}, which opset {opset} does not have."
    for name, value in newer_values(node, opset):
        yield f"{title} has {name} = {value!r}, which opset {opset} does not have."
    if (
        node.op_type == "GridSample"
        and opset < _OPSET_OF_VOLUMES
        and _rank(node) > _RANK_OF_IMAGES
    ):
        yield f"{title} samples a volume, which came with opset {_OPSET_OF_VOLUMES}."
    num_inputs = len(node.inputs)
    if not schema.min_input <= num_inputs <= schema.max_input:
        yield f"{title} has {num_inputs} inputs, which opset {opset} does not have."
    yield from _types_of(node, schema, title, opset)


def _rank(node: ir.Node) -> int:
    data = node.inputs[0]
    return len(data.shape) if data is not None and data.shape is not None else 0


def _types_of(node: ir.Node, schema: Any, title: str, opset: int) -> Iterator[str]:
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        for position, value in enumerate(values):
            if value is None or not isinstance(value.type, ir.TensorType) or not formals:
                continue
            formal = formals[min(position, len(formals) - 1)]
            name = f"tensor({value.type.dtype.name.lower()})"
            types = allowed.get(formal.type_str, {formal.type_str})
            if name not in types:
                yield f"{title} has {name} as {formal.name}, which opset {opset} does not have."
