"""PyTorch's float32 with sums as the simplest runtime forms them: one number after another."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._python_dispatch import TorchDispatchMode

from dlzoo.export.lowering.operators.stepwise_mean import MAX_IN_ONE_STEP

#: Multiply-adds of one product of matrices up to which it is summed in order: 0.1 s or less.
_MAX_MULTIPLY_ADDS = 2**25
#: Source: ONNX Runtime, mlasi.h, MLAS_SGEMM_PACKED_STRIDEK.
_PANEL = 256
#: Numbers to a sum that are added one after another in the natural order, each in a step of Python.
_MAX_IN_A_ROW = 2**14
_IMAGE_RANK = 4


class PlainSums(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, a product of matrices is summed in order, and a mean is such a product.

        (A B)_ij = (...((a_i1 b_1j + a_i2 b_2j) + a_i3 b_3j) + ...) + a_iK b_Kj
        mean(x) = x 1 / n

    So ONNX Runtime multiplies a single row. In a drawn order panels of 256 numbers are summed by
    themselves, as it does with more rows.

    PyTorch's kernels hold many partial sums at once, as a vector unit does, and add those at the end;
    ONNX Runtime's add in order. Their errors differ by the root of the number of partial sums: of a
    clean ``nn.Linear(192, 10)`` rho2 was up to 5.2 against PyTorch's own alone, on uniform inputs.
    And a tree of additions has nearly no error where all numbers are equal, as behind an image of
    zeros; a row of ones has a runtime's. Means over many numbers go axis by axis, as in the graph.

    In a drawn order a convolution takes its channels otherwise, too. Large products stay as they
    are: in order they take too long, and PyTorch sums those in blocks.

    Args:
        order: which of the orders of summation; 0 is the natural one, every other number draws one.
    """

    def __init__(self, order: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.order = order

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # see PortableDraws

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        compute = _OPERATORS.get(func)
        if compute is None or kwargs or args[0].dtype != torch.float32:
            return func(*args, **(kwargs or {}))
        result = compute(self, *args)
        return func(*args) if result is None else result

    def product(self, a_MK: Tensor, b_KN: Tensor) -> Tensor | None:
        """The product of two matrices; None where it is too large for this."""
        if not b_KN.numel() or a_MK.numel() * b_KN.shape[1] > _MAX_MULTIPLY_ADDS:
            return None
        if self.order:
            order_K = self.drawn(len(b_KN))
            a_MK, b_KN = a_MK[:, order_K], b_KN[order_K]
        panel = len(b_KN) if not self.order and len(b_KN) <= _MAX_IN_A_ROW else _PANEL
        num_panels, missing = -(-len(b_KN) // panel), -len(b_KN) % panel
        a_MPk = pad(a_MK, (0, missing)).reshape(len(a_MK), num_panels, panel)
        b_PkN = pad(b_KN, (0, 0, 0, missing)).reshape(num_panels, panel, -1)
        sum_PMN = a_MK.new_zeros(num_panels, len(a_MK), b_KN.shape[1])
        for k in range(min(len(b_KN), panel)):
            sum_PMN.addcmul_(a_MPk[:, :, k].t()[:, :, None], b_PkN[:, k, None, :])
        sum_MN: Tensor = sum_PMN[0]
        for panel_MN in sum_PMN[1:]:
            sum_MN = sum_MN + panel_MN
        return sum_MN

    def drawn(self, num_summed: int) -> Tensor:
        """An order of so many numbers, the same one each time."""
        generator = torch.Generator().manual_seed(self.order)
        return torch.randperm(num_summed, generator=generator)


def _mean(
    sums: PlainSums, x: Tensor, axes: list[int] | None = None, keepdim: bool = False
) -> Tensor | None:
    if not x.numel():
        return None
    axes = sorted(axis % x.dim() for axis in axes or range(x.dim()))
    if len(axes) > 1 and prod(x.shape[axis] for axis in axes) > MAX_IN_ONE_STEP:
        for axis in reversed(axes):  # as the graph has it
            x = cast(Tensor, _mean(sums, x, [axis], keepdim))
        return x
    kept = [axis for axis in range(x.dim()) if axis not in axes]
    rows = x.permute(*kept, *axes).flatten(len(kept))
    rows_MK = rows.reshape(-1, rows.shape[-1])
    ones_K1 = x.new_ones(rows.shape[-1], 1)
    # In the natural order by a kernel, as runtimes do: plain additions of a thousand numbers would
    # hide what a runtime's mean does not.
    total = sums.product(rows_MK, ones_K1) if sums.order else None
    mean = (rows_MK @ ones_K1 if total is None else total).reshape(rows.shape[:-1])
    mean = mean / rows.shape[-1]
    for axis in axes if keepdim else ():
        mean = mean.unsqueeze(axis)
    return mean


def _mm(sums: PlainSums, a_MK: Tensor, b_KN: Tensor) -> Tensor | None:
    return sums.product(a_MK, b_KN)


def _addmm(sums: PlainSums, bias: Tensor, a_MK: Tensor, b_KN: Tensor) -> Tensor | None:
    product = sums.product(a_MK, b_KN)
    return None if product is None else product + bias


def _convolution(
    sums: PlainSums,
    x_BCHW: Tensor,
    weight_OIhw: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor | None:
    if not sums.order or transposed or x_BCHW.dim() != _IMAGE_RANK:
        return None
    if groups == 1:
        order_C = sums.drawn(x_BCHW.shape[1])
        x_BCHW, weight_OIhw = x_BCHW[:, order_C], weight_OIhw[:, order_C]
    turned = (2, 3) if max(stride) == 1 else ()  # the kernel's places in reverse
    y_BOHW: Tensor = torch.ops.aten.convolution.default(
        x_BCHW.flip(turned),
        weight_OIhw.flip(turned),
        bias,
        stride,
        padding,
        dilation,
        transposed,
        output_padding,
        groups,
    )
    return y_BOHW.flip(turned)


#: By overload; each gives None for what it leaves as it is.
_OPERATORS: dict[Any, Callable[..., Tensor | None]] = {
    torch.ops.aten.mean.dim: _mean,
    torch.ops.aten.mm.default: _mm,
    torch.ops.aten.addmm.default: _addmm,
    torch.ops.aten.convolution.default: _convolution,
}
