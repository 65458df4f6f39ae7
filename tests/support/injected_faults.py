"""Faults put into one node of an exported graph each, for the tests of localization.

Each is what an exporter, an optimizer or a person might do, and no shape check sees it. The
network's other nodes stay as they are, so one node alone deserves the blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper


@dataclass(frozen=True)
class Fault:
    """One fault: ``node`` is the node to blame, ``missing`` the value that nobody makes any more."""

    kind: str
    node: str
    apply: Callable[[ModelProto], None]
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.kind} at {self.node}"


def faulted(path: str, fault: Fault) -> ModelProto:
    """The model with the fault in it."""
    model = onnx.load(path)
    fault.apply(model)
    return model


def all_faults(model: ModelProto) -> Iterator[Fault]:
    """Every fault that this graph can have, node by node."""
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        yield from _weight_faults(node, stored, uses)
        yield from _attribute_faults(node)
        yield from _swaps(node)
        yield from _removals(model, index, node)
        yield from _rewirings(model, index, node)


def sampled_faults(model: ModelProto, count: int, seed: int) -> list[Fault]:
    """``count`` of them at random, each kind as often as any other as far as it goes."""
    by_kind: dict[str, list[Fault]] = {}
    for fault in all_faults(model):
        by_kind.setdefault(fault.kind, []).append(fault)
    rng = np.random.default_rng(seed)
    for faults in by_kind.values():
        rng.shuffle(faults)  # type: ignore[arg-type]
    chosen: list[Fault] = []
    while len(chosen) < count and any(by_kind.values()):
        chosen += [faults.pop() for faults in by_kind.values() if faults]
    return chosen[:count]


def _named(model: ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def _weight_faults(
    node: NodeProto, stored: dict[str, onnx.TensorProto], uses: dict[str, int]
) -> Iterator[Fault]:
    for name in node.input[1:]:
        if name not in stored or uses[name] > 1 or stored[name].data_type != 1:
            continue
        shape = list(stored[name].dims)
        if not shape:
            continue

        def change(
            model: ModelProto, edit: Callable[[np.ndarray], np.ndarray], name: str = name
        ) -> None:
            tensor = next(t for t in model.graph.initializer if t.name == name)
            array = edit(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))

        edits: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "tensor a thousandth larger": lambda w: w * np.float32(1.001),
            "one row larger": _one_row_larger,
            "one element doubled": _one_element_doubled,
        }
        if len(shape) > 1 and shape[0] > 1:
            edits["rows swapped"] = _rows_swapped
        if len(shape) == 4 and shape[2] == shape[3] > 1:
            edits["kernel transposed"] = lambda w: w.swapaxes(2, 3)
        if len(shape) == 1:
            edits["vector zeroed"] = np.zeros_like
        for kind, edit in edits.items():
            yield Fault(kind, node.name, lambda model, e=edit, c=change: c(model, e))  # type: ignore[misc]


def _one_row_larger(w: np.ndarray) -> np.ndarray:
    w[0] *= 1.01
    return w


def _one_element_doubled(w: np.ndarray) -> np.ndarray:
    w.reshape(-1)[np.argmax(np.abs(w))] *= 2
    return w


def _rows_swapped(w: np.ndarray) -> np.ndarray:
    w[[0, 1]] = w[[1, 0]]
    return w


def _set(model: ModelProto, node_name: str, attribute: str, value: object) -> None:
    node = _named(model, node_name)
    kept = [a for a in node.attribute if a.name != attribute]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(attribute, value)])


def _attribute_faults(node: NodeProto) -> Iterator[Fault]:
    has = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    changes: dict[str, tuple[str, object]] = {}
    pads = list(has.get("pads", ()))
    if len(pads) == 4 and any(pads):
        top, left, bottom, right = pads
        changes["pads moved"] = ("pads", [0, 0, top + bottom, left + right])
    if node.op_type in ("Conv", "MaxPool") and list(has.get("strides", ())) == [2, 2]:
        changes["stride forgotten"] = ("strides", [1, 1])
    if node.op_type == "AveragePool" and any(pads):
        flipped = 1 - has.get("count_include_pad", 0)
        changes["padding counted otherwise"] = ("count_include_pad", flipped)
    if node.op_type == "MaxPool" and "ceil_mode" in has:
        changes["ceil_mode flipped"] = ("ceil_mode", 1 - has["ceil_mode"])
    if "epsilon" in has:
        changes["epsilon changed"] = ("epsilon", 0.01)
    if node.op_type == "Gemm":
        changes["alpha changed"] = ("alpha", 1.01)
        changes["beta forgotten"] = ("beta", 0.0)
    if node.op_type == "Gelu":
        exact = has.get("approximate", b"none") == b"none"
        changes["other GELU"] = ("approximate", "tanh" if exact else "none")
    if node.op_type == "Softmax":
        changes["axis changed"] = ("axis", -2)
    for kind, (name, value) in changes.items():
        yield Fault(
            kind,
            node.name,
            lambda model, n=name, v=value: _set(model, node.name, n, v),  # type: ignore[misc]
        )


#: Operators that take the same inputs and give the same shape, so that nothing refuses the graph.
_OTHER_OPERATORS = {
    "Relu": ("LeakyRelu", "Identity", "Softplus"),
    "Tanh": ("Sigmoid", "Softsign"),
    "Sigmoid": ("HardSigmoid",),
    "Gelu": ("Mish", "Relu"),
    "Add": ("Sub", "Mul"),
    "Mul": ("Add",),
    "Div": ("Mul",),
    "Erf": ("Tanh",),
    "Softmax": ("LogSoftmax", "Hardmax"),
    "MaxPool": ("AveragePool",),
    "GlobalAveragePool": ("GlobalMaxPool",),
    "ReduceMean": ("ReduceMax", "ReduceSum"),
    "Clip": ("Identity",),
}


def _swaps(node: NodeProto) -> Iterator[Fault]:
    for op_type in _OTHER_OPERATORS.get(node.op_type, ()):

        def swap(model: ModelProto, op_type: str = op_type) -> None:
            found = _named(model, node.name)
            found.op_type = op_type
            keep = {
                "AveragePool": {"kernel_shape", "strides", "pads", "ceil_mode", "auto_pad"}
            }
            allowed = keep.get(op_type, {"keepdims", "axis"})
            kept = [a for a in found.attribute if a.name in allowed]
            del found.attribute[:]
            found.attribute.extend(kept)
            if op_type == "Identity":
                del found.input[1:]

        yield Fault(f"{node.op_type} written as {op_type}", node.name, swap)


#: Without one of these the shapes still fit.
_REMOVABLE = {
    "Relu",
    "Clip",
    "Tanh",
    "Sigmoid",
    "Gelu",
    "LayerNormalization",
    "Softmax",
    "Erf",
}


def _removals(model: ModelProto, index: int, node: NodeProto) -> Iterator[Fault]:
    output = node.output[0]
    if node.op_type not in _REMOVABLE or any(o.name == output for o in model.graph.output):
        return
    consumer = next(n for n in model.graph.node[index + 1 :] if output in n.input)

    def remove(model: ModelProto) -> None:
        found = _named(model, node.name)
        for other in model.graph.node:
            for place, name in enumerate(other.input):
                if name == output:
                    other.input[place] = found.input[0]
        model.graph.node.remove(found)

    yield Fault("node removed", consumer.name, remove, missing=output)


def _rewirings(model: ModelProto, index: int, node: NodeProto) -> Iterator[Fault]:
    stored = {tensor.name for tensor in model.graph.initializer}
    is_ordered = node.op_type in ("MatMul", "Sub", "Div") and not stored & set(node.input)
    if (is_ordered or node.op_type == "Concat") and len(set(node.input)) > 1:

        def reverse(model: ModelProto) -> None:
            found = _named(model, node.name)
            inputs = list(found.input)[::-1]
            del found.input[:]
            found.input.extend(inputs)

        yield Fault("inputs swapped", node.name, reverse)
    if node.op_type in ("Relu", "Add", "Clip", "Gelu") and index:
        # What the producer of its input took: a step is skipped for this consumer alone.
        source = next((n for n in model.graph.node if node.input[0] in n.output), None)
        kinds = ("Relu", "Clip", "Gelu", "BatchNormalization")
        if source is not None and source.op_type in kinds:

            def skip(model: ModelProto) -> None:
                _named(model, node.name).input[0] = source.input[0]

            yield Fault("input taken one step early", node.name, skip)
