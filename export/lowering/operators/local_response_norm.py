"""LocalResponseNorm: ``x / (k + alpha mean_j x_j^2)^beta`` over ``size`` channels j around x's.

A power of 1/2 or 3/4 is made of square roots, which cost a tenth of what Pow does and are
rounded correctly.

Source:
    Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural
    networks", section 3.3. Beyond the edge channels count as 0, also in the mean: torch and ONNX.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlzoo.export.lowering.onnx_operators import ints, op
from dlzoo.export.lowering.registry import Lowering, Operator, add_operator


@torch.library.custom_op("dlzoo::local_response_norm", mutates_args=())
def _local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return F.local_response_norm(x, size, alpha, beta, k)


@_local_response_norm.register_fake
def _(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return torch.empty_like(x)


def _traced(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """What is traced in place of ``torch.nn.functional.local_response_norm``."""
    traced: Tensor = torch.ops.dlzoo.local_response_norm.default(
        input, size, float(alpha), float(beta), float(k)
    )
    return traced


def _refuses_even_size(x: Any, size: int, alpha: float, beta: float, k: float) -> str:
    # torch's window starts at i - size / 2, ONNX's ends at i + size / 2.
    return "has another window than torch where the size is even" if size % 2 == 0 else ""


def _refuses_other_powers(x: Any, size: int, alpha: float, beta: float, k: float) -> str:
    return "" if beta in (0.5, 0.75, 1.0) else f"has no power of {beta}"


def _denominator(x: Any, size: int, alpha: float, k: float) -> Any:
    """``k + alpha mean_j x_j^2``: an average pooling along the channels."""
    rank = len(x.shape)
    squares = op.Mul(x, x)
    if rank > 4:  # pooling has at most three axes
        squares = op.Reshape(squares, ints(0, 0, 0, -1))
    num_axes = min(rank, 4)
    axis = ints(1)
    before = [0, 0, size // 2] + [0] * (num_axes - 2)
    after = [0, 0, (size - 1) // 2] + [0] * (num_axes - 2)
    padded = op.Pad(op.Unsqueeze(squares, axis), ints(*before, *after))
    ones = [1] * (num_axes - 2)
    mean = op.AveragePool(padded, kernel_shape=[size, *ones], strides=[1, *ones])
    mean = op.Squeeze(mean, axis)
    if rank > 4:
        mean = op.Reshape(mean, op.Shape(x))
    return op.Add(op.Mul(mean, alpha), k)


def _native(x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
    return op.LRN(x, size=size, alpha=alpha, beta=beta, bias=k)


def _power(x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
    return op.Div(x, op.Pow(_denominator(x, size, alpha, k), beta))


def _sqrt(x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
    divisor = _denominator(x, size, alpha, k)
    if beta < 1.0:
        divisor = root = op.Sqrt(divisor)
        if beta == 0.75:
            divisor = op.Mul(root, op.Sqrt(root))
    return op.Div(x, divisor)


add_operator(
    Operator(
        name="local_response_norm",
        torch_operators=("dlzoo.local_response_norm.default",),
        formula="x / (k + alpha mean_j x_j^2)^beta",
        torch_function=F.local_response_norm,
        replacement=_traced,
    ),
    Lowering(
        operator="local_response_norm",
        spelling="native",
        onnx=("LRN",),
        translate=_native,
        refuses=_refuses_even_size,
        note="odd sizes",
    ),
    Lowering(
        operator="local_response_norm",
        spelling="decomposed",
        form="sqrt",
        onnx=("Mul", "Unsqueeze", "Pad", "AveragePool", "Squeeze", "Add", "Sqrt", "Div"),
        translate=_sqrt,
        refuses=_refuses_other_powers,
        note="beta of 0.5, 0.75 or 1",
    ),
    Lowering(
        operator="local_response_norm",
        spelling="decomposed",
        form="pow",
        onnx=("Mul", "Unsqueeze", "Pad", "AveragePool", "Squeeze", "Add", "Pow", "Div"),
        translate=_power,
        note="the exporter's own",
    ),
)
