"""Antialiased resize: each place of the result is a weighted sum of a few of the image.

PyTorch leaves out what lies beyond the edge and lets the remaining weights add up to 1; the
exporter's own Resize repeats the edge instead, which makes a border of wrong values.

Source:
    PyTorch, ``torch.nn.functional.interpolate(antialias=True)``, whose weights are PIL's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dlzoo.export.lowering.onnx_operators import constant, ints, op
from dlzoo.export.lowering.operators.windows import OPERATORS, weighted_windows
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


def _refuses_open_size(x: Any, output_size: Sequence[Any], *_: Any, **__: Any) -> str:
    sizes = (*x.shape[2:], *output_size)
    return (
        "" if all(isinstance(size, int) for size in sizes) else "needs an image of fixed size"
    )


def _native(
    mode: str,
    x: Any,
    output_size: Sequence[Any],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    scales = target = None
    if scales_h is not None and scales_w is not None and not align_corners:
        scales = constant(np.array([1.0, 1.0, scales_h, scales_w], np.float32))
    else:
        target = _target_shape(x, output_size)
    return op.Resize(
        x,
        None,
        scales,
        target,
        mode=mode,
        antialias=1,
        coordinate_transformation_mode="align_corners" if align_corners else "half_pixel",
        cubic_coeff_a=-0.5,
        exclude_outside=1,
    )


def _target_shape(x: Any, output_size: Sequence[Any]) -> Any:
    sizes = [*x.shape[:2], *output_size]
    if all(isinstance(size, int) for size in sizes):
        return ints(*sizes)
    asked = [
        ints(size) if isinstance(size, int) else op.Reshape(size, ints(1))
        for size in output_size
    ]
    return op.Concat(op.Shape(x, start=0, end=2), *asked, axis=0)


def _windows(
    function: Callable[..., Any],
    x: Any,
    output_size: Sequence[int],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    y = x
    for axis, to, scale in zip((2, 3), output_size, (scales_h, scales_w), strict=True):
        size = x.shape[axis]
        weights = _weights(function, size, to, align_corners, scale)
        y.dtype = y.dtype or x.dtype
        y = weighted_windows(y, axis, size, _nonzero_parts(weights))
    return y


def _weights(
    function: Callable[..., Any], size: int, to: int, align_corners: bool, scale: float | None
) -> npt.NDArray[np.float64]:
    """The weight of every place in every place of the result: what becomes of unit vectors."""
    unit = torch.eye(size, dtype=torch.float64).reshape(1, 1, size, size)
    resized = function(unit, [to, size], align_corners, scale, None)
    weights: npt.NDArray[np.float64] = resized[0, 0].numpy()
    return weights


def _nonzero_parts(
    weights: npt.NDArray[np.float64],
) -> list[tuple[int, npt.NDArray[np.float64]]]:
    parts = []
    for row in weights:
        (places,) = np.nonzero(row)
        parts.append((int(places[0]), row[places[0] : places[-1] + 1]))
    return parts


for _name, _mode, _function in (
    ("bilinear", "linear", torch.ops.aten._upsample_bilinear2d_aa.default),
    ("bicubic", "cubic", torch.ops.aten._upsample_bicubic2d_aa.default),
):
    add_operator(
        Operator(
            name=f"resize_{_name}_aa",
            torch_operators=(f"aten._upsample_{_name}2d_aa.default",),
            formula=f"{_name} weights, stretched by the scale where the image shrinks",
        ),
        Lowering(
            operator=f"resize_{_name}_aa",
            spelling="native",
            onnx=("Resize",),
            translate=partial(_native, _mode),
            min_opset=18,
        ),
        Lowering(
            operator=f"resize_{_name}_aa",
            spelling="decomposed",
            onnx=OPERATORS,
            translate=partial(_windows, _function),
            refuses=_refuses_open_size,
            note="images of fixed size",
        ),
    )
