"""Write the windows of pooling so that ONNX's shape inference and ONNX Runtime accept them.

PyTorch drops a last window that would start beyond the image, and the shape inference of some
opsets does not: it refuses what every runtime computes rightly. Where a size is fixed, the number
of windows is known, and ``ceil_mode`` is nothing but another padding at the end:

    e = (n_out - 1) s + d (k - 1) + 1 - n - p

ONNX Runtime takes no padding as wide as the kernel, which the last window of a dilated kernel may
need: there the image is padded by a node of its own.

Source:
    ATen/native/Pool.h, pooling_output_shape_pad_lr; onnx/defs/nn/defs.cc, convPoolShapeInference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from dlzoo.export.opset.adapter import Rewrite

_POOLS = ("MaxPool", "AveragePool")


@dataclass(frozen=True)
class _Axis:
    """One axis of an image and the windows along it; ``size`` is None where it is open."""

    size: int | None
    kernel: int
    stride: int
    dilation: int
    first_pad: int
    last_pad: int

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    @property
    def num_windows(self) -> int:
        """How many there are without ``ceil_mode``."""
        assert self.size is not None
        return (self.size + self.first_pad + self.last_pad - self.reach) // self.stride + 1

    def fixed(self) -> _Axis:
        """The same windows without ``ceil_mode``."""
        assert self.size is not None
        padded = self.size + self.first_pad + self.last_pad
        num_windows = -(-(padded - self.reach) // self.stride) + 1
        if (num_windows - 1) * self.stride >= self.size + self.first_pad:
            num_windows -= 1
        end = (num_windows - 1) * self.stride + self.reach
        return replace(self, last_pad=max(0, end - self.size - self.first_pad))


def write_windows(model: ir.Model) -> None:
    """Replace ``ceil_mode`` along fixed axes, and paddings as wide as the kernel, in place."""
    for graph in list(model.graphs()):
        for node in list(graph):
            if node.domain == "" and node.op_type in _POOLS:
                rewrite = Rewrite(model, node)
                axes = _axes_of(rewrite)
                if rewrite.attribute("ceil_mode", 0) and axes:
                    axes = _write_without_ceil_mode(rewrite, axes)
                if axes and node.op_type == "MaxPool" and not _gives_places(node):
                    _pad_before(rewrite, axes)


def _axes_of(rewrite: Rewrite) -> list[_Axis]:
    image = rewrite.input(0)
    kernel = rewrite.attribute("kernel_shape")
    if image is None or image.shape is None or len(image.shape) != len(kernel) + 2:
        return []
    rank = len(kernel)
    pads = rewrite.attribute("pads") or [0] * 2 * rank
    return [
        _Axis(size if isinstance(size, int) else None, *numbers)
        for size, *numbers in zip(
            image.shape[2:],
            kernel,
            rewrite.attribute("strides") or [1] * rank,
            rewrite.attribute("dilations") or [1] * rank,
            pads[:rank],
            pads[rank:],
            strict=True,
        )
    ]


def _gives_places(node: ir.Node) -> bool:
    """Whether a node gives the place of each maximum, which counts from the image it is given."""
    return len(node.outputs) > 1 and bool(
        node.outputs[1].uses() or node.outputs[1].is_graph_output()
    )


def _write_without_ceil_mode(rewrite: Rewrite, axes: list[_Axis]) -> list[_Axis]:
    """Returns the axes as they are pooled by the node that is left."""
    is_open = [axis.size is None for axis in axes]
    if any(is_open):
        if all(is_open) or _gives_places(rewrite.node):
            return axes
        # Both kinds of pooling are products along axes: the open ones go first, by themselves.
        alone = [axis if axis.size is None else _untouched(axis) for axis in axes]
        pooled = rewrite.add(
            rewrite.node.op_type,
            [rewrite.input(0)],
            {
                **{name: rewrite.attribute(name) for name in rewrite.node.attributes},
                **_attributes(alone),
            },
            name="along_open_axes",
        )
        pooled.type = rewrite.node.outputs[0].type
        rewrite.node.replace_input_with(0, pooled)
        axes = [_untouched(axis) if axis.size is None else axis for axis in axes]
    fixed = [axis if axis.size is None else axis.fixed() for axis in axes]
    if rewrite.attribute("count_include_pad", 0):
        fixed = _count_only_the_padded_image(rewrite, axes, fixed)
    rewrite.drop("ceil_mode")
    _set_windows(rewrite, fixed)
    for value in rewrite.node.outputs:
        # Inferred from the old attributes, where a value is none that PyTorch has.
        if value.shape is not None:
            sizes = [
                old if axis.size is None else axis.num_windows
                for old, axis in zip(list(value.shape)[2:], fixed, strict=True)
            ]
            value.shape = ir.Shape([*list(value.shape)[:2], *sizes])
    return fixed


def _untouched(axis: _Axis) -> _Axis:
    return _Axis(axis.size, kernel=1, stride=1, dilation=1, first_pad=0, last_pad=0)


def _count_only_the_padded_image(
    rewrite: Rewrite, axes: Sequence[_Axis], fixed: Sequence[_Axis]
) -> list[_Axis]:
    """Pad by a node, so that what a window has beyond the padded image is not counted."""
    if all(new.last_pad <= old.last_pad for old, new in zip(axes, fixed, strict=True)):
        return list(fixed)
    inside = [
        replace(new, last_pad=min(old.last_pad, new.last_pad))
        for old, new in zip(axes, fixed, strict=True)
    ]
    _insert_pad(rewrite, inside, 0.0)
    rewrite.drop("count_include_pad")
    return [
        replace(
            new,
            size=None if new.size is None else new.size + new.first_pad + padded.last_pad,
            first_pad=0,
            last_pad=new.last_pad - padded.last_pad,
        )
        for new, padded in zip(fixed, inside, strict=True)
    ]


def _pad_before(rewrite: Rewrite, axes: Sequence[_Axis]) -> None:
    if all(max(axis.first_pad, axis.last_pad) < axis.kernel for axis in axes):
        return
    if rewrite.attribute("ceil_mode", 0):
        return  # along an open axis the padding at the end depends on the size
    image = rewrite.input(0)
    assert image is not None and image.dtype is not None
    is_float = image.dtype.is_floating_point()
    lowest = -np.inf if is_float else np.iinfo(image.dtype.numpy()).min
    _insert_pad(rewrite, axes, lowest)
    _set_windows(rewrite, [replace(axis, first_pad=0, last_pad=0) for axis in axes])


def _insert_pad(rewrite: Rewrite, axes: Sequence[_Axis], filler: float) -> None:
    image = rewrite.input(0)
    assert image is not None and image.dtype is not None
    pads = [0, 0, *(a.first_pad for a in axes), 0, 0, *(a.last_pad for a in axes)]
    if not any(pads):
        return
    padded = rewrite.add(
        "Pad",
        [
            image,
            rewrite.new_constant(np.array(pads, np.int64), "image_pads"),
            rewrite.new_constant(np.array(filler, image.dtype.numpy()), "filler"),
        ],
        name="padded",
    )
    padded.type = image.type
    rewrite.node.replace_input_with(0, padded)


def _attributes(axes: Sequence[_Axis]) -> dict[str, Any]:
    return {
        "kernel_shape": [axis.kernel for axis in axes],
        "strides": [axis.stride for axis in axes],
        "pads": [axis.first_pad for axis in axes] + [axis.last_pad for axis in axes],
        **(
            {"dilations": [axis.dilation for axis in axes]}
            if any(axis.dilation != 1 for axis in axes)
            else {}
        ),
    }


def _set_windows(rewrite: Rewrite, axes: Sequence[_Axis]) -> None:
    for name, numbers in _attributes(axes).items():
        rewrite.set_ints(name, numbers)
