"""Opsets below the exporter's own: every node is written as the older opset has it.

``torch.onnx`` writes opset 18 and later; asked for less, it delivers 18 where onnx's converter
knows no way, without a word. Here the graph goes down version by version. A version of an
operator that only takes more types is the same node; one that takes more attributes is, where
they have their defaults; the rest have an adapter in ``dlzoo.export.opset``, or none.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx.helper
import onnx_ir as ir

from dlzoo.errors import OpsetError
from dlzoo.export.graph.onnx_graph import checkable_proto
from dlzoo.export.graph.valid_nodes import newer_values, version_of_value
from dlzoo.export.opset import (
    arithmetic,
    axes,
    comparison,
    normalization,
    resize,
    shape,
    softmax,
)
from dlzoo.export.opset.adapter import ADAPTERS, CannotDowngradeError, Rewrite

#: These register adapters when they are imported.
_ADAPTER_MODULES = (arithmetic, axes, comparison, normalization, resize, shape, softmax)
#: What the exporter's operators are written in.
LOWEST_NATIVE_OPSET = 18
#: Same attributes and inputs, another meaning, and no adapter: modes of other names came.
_NEW_VALUES = {
    ("ScatterElements", 18): ("reduction", ("none", "add", "mul")),
    ("ScatterND", 18): ("reduction", ("none", "add", "mul")),
    ("RoiAlign", 16): ("coordinate_transformation_mode", ("output_half_pixel",)),
}


def convert_down(model: ir.Model, opset: int) -> ir.Model:
    """Write a model in a lower opset, in place; the weights stay where they are.

    Raises:
        OpsetError: an operator has no older form, or what came out breaks ONNX's rules; the
            message names the lowest opset that works.
    """
    untouched = checkable_proto(model)
    try:
        _convert(model, opset)
    except CannotDowngradeError as error:
        lowest = _lowest_opset(untouched, opset)
        raise OpsetError(
            f"Opset {opset} cannot be delivered for this network: {error} The lowest that works "
            f"is {lowest}: use `opset={lowest}`."
        ) from None
    return model


def write_newer_values(model: ir.Model) -> None:
    """Write nodes with an attribute value that the model's opset does not have, in place.

    The exporter takes ``Pad`` with ``mode="wrap"``, of opset 19, at opset 18, too.

    Raises:
        OpsetError: there is no such form; the opset with which the value came is named.
    """
    opset = model.opset_imports[""]
    for graph in list(model.graphs()):
        for node in list(graph):
            for name, value in newer_values(node, opset):
                version = version_of_value(node.op_type, name, value)
                adapter = ADAPTERS.get((node.op_type, version or 0))
                if adapter is None:
                    came = f"came with opset {version}" if version else "is not ONNX's"
                    raise OpsetError(
                        f"Opset {opset} cannot be delivered for this network: {node.op_type} "
                        f"has {name} = {value!r}, which {came}."
                    )
                adapter(Rewrite(model, node))


def _convert(model: ir.Model, opset: int) -> None:
    for version in range(model.opset_imports[""], opset, -1):
        for graph in list(model.graphs()):
            for node in list(graph):
                if node.domain == "":
                    _downgrade(Rewrite(model, node), version)
    model.opset_imports[""] = opset
    model.ir_version = _ir_version(opset)
    for graph in model.graphs():
        for node in graph:
            node.version = None
    try:
        onnx.checker.check_model(checkable_proto(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CannotDowngradeError(f"ONNX's checker says: {lines[0].rstrip('.')}.") from None


def _downgrade(rewrite: Rewrite, version: int) -> None:
    """Take one version of a node's operator back, if it came with that opset."""
    node = rewrite.node
    try:
        newer = onnx.defs.get_schema(node.op_type, version)
    except onnx.defs.SchemaError:
        raise CannotDowngradeError(
            f"{node.op_type} is no operator of opset {version}."
        ) from None
    if newer.since_version != version:
        return
    adapter = ADAPTERS.get((node.op_type, version))
    if adapter is not None:
        adapter(rewrite)
        return
    try:
        older = onnx.defs.get_schema(node.op_type, version - 1)
    except onnx.defs.SchemaError:
        raise rewrite.fail(f"came with opset {version}") from None
    _drop_new_attributes(rewrite, newer, older, version)
    num_inputs = sum(value is not None for value in node.inputs)
    if num_inputs > older.max_input:
        raise rewrite.fail(f"has {num_inputs} inputs, which came with opset {version}")


def _drop_new_attributes(rewrite: Rewrite, newer: Any, older: Any, version: int) -> None:
    name, known = _NEW_VALUES.get((rewrite.node.op_type, version), ("", ()))
    if name and rewrite.attribute(name, known[0]) not in known:
        raise rewrite.fail(
            f"came to {rewrite.attribute(name)!r} as its {name} with opset {version}"
        )
    for name in set(rewrite.node.attributes) - set(older.attributes):
        default = newer.attributes[name].default_value
        value = rewrite.attribute(name)
        had = onnx.helper.get_attribute_value(default) if default.type else None
        had = had.decode() if isinstance(had, bytes) else had
        if value != had and (rewrite.node.op_type, version) not in _NEW_VALUES:
            raise rewrite.fail(f"came to {name} = {value} with opset {version}")
        rewrite.drop(name)


def _lowest_opset(proto: onnx.ModelProto, above: int) -> int:
    for opset in range(above + 1, LOWEST_NATIVE_OPSET):
        try:
            _convert(ir.from_proto(proto), opset)
        except CannotDowngradeError:
            continue
        return opset
    return LOWEST_NATIVE_OPSET


def _ir_version(opset: int) -> int:
    """The oldest that holds this opset, so that runtimes of its time read the file."""
    imports = [onnx.helper.make_opsetid("", opset)]
    return int(onnx.helper.find_min_ir_version_for(imports, True))
