"""Ways to break an exported model that no shape check sees, each as a person or a tool might."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Break = Callable[[ModelProto], None]
#: Name of the break -> what it does to the model in place; the order is that of the definitions.
BREAKS: dict[str, Break] = {}


def a_break(function: Break) -> Break:
    """Enter a break in the table under its function's name."""
    BREAKS[function.__name__] = function
    return function


def first_node(model: ModelProto, op_type: str) -> NodeProto:
    """The first node of a type; the test network has every type that is asked for."""
    return next(node for node in model.graph.node if node.op_type == op_type)


def attribute(node: NodeProto, name: str) -> onnx.AttributeProto:
    """An attribute of a node that is there."""
    return next(a for a in node.attribute if a.name == name)


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Set an attribute, whether it was there or not."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def change_initializer(
    model: ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Replace a stored tensor by a changed copy."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    changed = np.ascontiguousarray(change(numpy_helper.to_array(tensor).copy()))
    tensor.CopyFrom(numpy_helper.from_array(changed, name))


@a_break
def weight_rows_swapped(model: ModelProto) -> None:
    def swap(weight: np.ndarray) -> np.ndarray:
        weight[[0, 1]] = weight[[1, 0]]
        return weight

    change_initializer(model, first_node(model, "Gemm").input[1], swap)


@a_break
def batch_norm_epsilon_changed(model: ModelProto) -> None:
    set_attribute(first_node(model, "BatchNormalization"), "epsilon", 1e-3)


@a_break
def gelu_erf_for_tanh(model: ModelProto) -> None:
    set_attribute(first_node(model, "Gelu"), "approximate", "tanh")


@a_break
def pad_moved(model: ModelProto) -> None:
    set_attribute(first_node(model, "Conv"), "pads", [0, 0, 2, 2])


@a_break
def windows_shifted(model: ModelProto) -> None:
    # ceil_mode is written as padding below and to the right: above and to the left gives its shape.
    node = first_node(model, "MaxPool")
    top, left, bottom, right = attribute(node, "pads").ints
    assert (top, left) != (bottom, right)
    set_attribute(node, "pads", [bottom, right, top, left])


@a_break
def bias_dropped(model: ModelProto) -> None:
    change_initializer(model, first_node(model, "Conv").input[2], np.zeros_like)


@a_break
def local_response_size_changed(model: ModelProto) -> None:
    # The window of LRN's sum is a pooling over the channels.
    node = first_node(model, "AveragePool")
    size = attribute(node, "kernel_shape").ints
    widest = max(size)
    set_attribute(node, "kernel_shape", [s - 2 if s == widest else s for s in size])
    pads = next(n for n in model.graph.node if node.input[0] in n.output)
    assert pads.op_type == "Pad"
    change_initializer(model, pads.input[1], lambda p: np.where(p == 2, 1, p))


@a_break
def one_weight_not_a_number(model: ModelProto) -> None:
    def spoil(weight: np.ndarray) -> np.ndarray:
        weight.reshape(-1)[0] = np.nan
        return weight

    change_initializer(model, first_node(model, "Gemm").input[1], spoil)


@a_break
def kernel_transposed(model: ModelProto) -> None:
    name = first_node(model, "Conv").input[1]
    change_initializer(model, name, lambda w: w.transpose(0, 1, 3, 2))


@a_break
def channel_order_reversed(model: ModelProto) -> None:
    change_initializer(model, first_node(model, "Conv").input[1], lambda w: w[:, ::-1])


@a_break
def output_missing(model: ModelProto) -> None:
    name = model.graph.output[0].name
    for node in model.graph.node:
        for index, output in enumerate(node.output):
            if output == name:
                node.output[index] = f"{name}_1"
    model.graph.output[0].name = f"{name}_1"


@a_break
def batch_baked(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


@a_break
def batch_norm_mean_and_variance_swapped(model: ModelProto) -> None:
    node = first_node(model, "BatchNormalization")
    node.input[3], node.input[4] = node.input[4], node.input[3]


@a_break
def group_norm_weight_dropped(model: ModelProto) -> None:
    # The groups are normalized first; what scales each channel follows.
    index = next(
        i for i, n in enumerate(model.graph.node) if n.op_type == "InstanceNormalization"
    )
    scaling = next(n for n in model.graph.node[index:] if n.op_type == "BatchNormalization")
    change_initializer(model, scaling.input[1], np.ones_like)


@a_break
def weights_rounded_to_half(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            change_initializer(
                model, tensor.name, lambda w: w.astype(np.float16).astype(np.float32)
            )


@a_break
def one_row_a_thousandth_larger(model: ModelProto) -> None:
    def scale(weight: np.ndarray) -> np.ndarray:
        weight[0] *= 1.001
        return weight

    change_initializer(model, first_node(model, "Conv").input[1], scale)


@a_break
def activation_left_out(model: ModelProto) -> None:
    node = first_node(model, "Relu")
    node.op_type = "Identity"
