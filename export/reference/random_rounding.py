"""PyTorch in float32 with the rounding of every operation moved at random.

Several such runs show how exact float32 arithmetic can be in a network: they lie about the exact
answer as any other order of the same arithmetic does, a runtime's too. The network runs as its
author calls it: the same batch, the same layout.

Source: Parker 1997, "Monte Carlo Arithmetic"; Denis, de Oliveira Castro and Petit 2016,
"Verificarlo: checking floating point accuracy through Monte Carlo arithmetic".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

#: Random numbers that are drawn once a run, and read from a place of its own by each operation:
#: drawing them anew would cost more than the convolutions. No power of two, so that no period
#: of a tensor's sizes meets that of the numbers.
_NUM_DRAWN = 2**20 + 7

#: Operations whose results are among their arguments' values, negated at most: nothing is rounded.
_EXACT = frozenset(
    """
    _local_scalar_dense _reshape_alias _to_copy _unsafe_view _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d abs adaptive_max_pool1d
    adaptive_max_pool2d adaptive_max_pool3d alias amax amin arange argmax argmin as_strided
    bernoulli bitwise_not block_diag bucketize cat ceil channel_shuffle chunk clamp clamp_max
    clamp_min clone column_stack constant_pad_nd contiguous copy copysign cummax cummin
    detach diag_embed diagonal_copy dropout embedding empty empty_like empty_strided eye fill
    flip floor fmax fmin fractional_max_pool2d fractional_max_pool3d full full_like gather
    hardshrink hardtanh heaviside im2col index index_copy index_fill index_select isclose
    kthvalue lift lift_fresh lift_fresh_copy masked_fill masked_scatter masked_select max
    max_pool1d max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices
    max_unpool2d max_unpool3d maximum median min minimum mode nan_to_num nanmedian
    narrow_copy native_channel_shuffle native_dropout neg new_empty new_empty_strided
    new_full new_ones new_zeros nextafter nonzero one_hot ones ones_like permute_copy
    pixel_shuffle pixel_unshuffle positive rand rand_like randint randn randn_like
    reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 repeat repeat_interleave
    replication_pad1d replication_pad2d replication_pad3d reshape resize resize_ roll rot90
    round scalar_tensor scatter select_copy select_scatter set_ sgn sign slice_copy
    slice_scatter sort split_copy split_with_sizes split_with_sizes_copy squeeze_copy stack
    t_copy take take_along_dim threshold tile topk transpose_copy tril triu trunc unbind_copy
    unfold_copy uniform unsqueeze_copy upsample_nearest1d upsample_nearest2d
    upsample_nearest3d view_as_complex view_as_real view_copy where zero zeros zeros_like
    """.split()  # noqa: SIM905
)


#: The last four bits of a number, the whole numbers of its size, and elements that are looked at first.
_LAST_BITS, _NUM_LOOKED_AT = 0x0F, 64
_BITS_OF = {torch.float32: torch.int32, torch.float64: torch.int64}
#: Elementary functions: a library's are within one to four units of the last place, where sums and
#: products are within a half.
_ELEMENTARY = frozenset(
    """
    acos acosh asin asinh atan atan2 atanh celu cos cosh digamma elu erf erfc erfinv exp exp2 expm1
    gelu hardswish i0 lgamma log log10 log1p log2 log_sigmoid log_sigmoid_forward logaddexp
    logaddexp2 logit mish polygamma pow rsqrt selu sigmoid silu sin sinc sinh softplus special_expit
    special_erfcx special_log_ndtr special_ndtr special_ndtri tan tanh xlogy
    """.split()  # noqa: SIM905
)


class RandomRounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, the result of every operation that rounds is moved by a random error.

    ``v + r·s`` with r uniform in [-1, 1], n the number of terms that one element of the result
    sums, and u the unit roundoff of the dtype:

    s = u · max(|v|, RMS of v over its channel) · max(1, √n / 2)   where n > 1
    s = 2u · |v|                             of an elementary function, such as exp or tanh
    s = u · |v|                                                    else

    √n / 2: the partial sums of n terms of random sign grow as √i, and each of them is rounded.
    A channel is all but the first two axes of a tensor, the last of a matrix.

    Args:
        seed: draws the errors.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn = torch.empty(_NUM_DRAWN).uniform_(-1, 1, generator=self._generator)
        self._offset = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation, then move what it gives."""
        result = func(*args, **(kwargs or {}))
        namespace, _, name = func._schema.name.partition("::")
        if namespace == "prims" or func.is_view:
            return result
        if name.endswith("_") and not name.startswith("__"):
            name = name[:-1]  # in place: the same arithmetic
        if name in _EXACT or (name in ("mul", "div") and _is_power_of_two(args[1])):
            return result
        if name == "native_batch_norm" or name.startswith("_native_batch_norm_legit"):
            self._move_batch_norm(result, args, kwargs or {})
            return result
        length = _num_terms(name, args, kwargs or {})
        # Of several results only the first is a value of the network, but for the statistics that
        # var_mean and std_mean give: a normalization's others are for its gradient.
        several = name in ("var_mean", "std_mean") or name.startswith(
            ("lstm", "gru", "_foreach")
        )
        results = result if isinstance(result, (tuple, list)) else [result]
        for value in results if several else results[:1]:
            if isinstance(value, Tensor):
                self._move(value, length, 2 if name in _ELEMENTARY else 1)
        return result

    def _move(self, v: Tensor, length: float, num_roundings: int = 1) -> None:
        if v.is_complex():
            v = torch.view_as_real(v.resolve_conj())
        if not v.is_floating_point() or not v.numel() or _is_exact(v):
            return
        unit_roundoff = num_roundings * torch.finfo(v.dtype).eps / 2
        largest = torch.finfo(v.dtype).max
        # Clamped: an infinity stays one, whatever is added to it.
        scale = v.clamp(-largest, largest)
        if length > 1:
            unit_roundoff *= max(1.0, math.sqrt(length) / 2)
            if v.dim() > 1:
                scale = torch.maximum(scale.abs_(), _channel_rms(v).clamp_(max=largest))
        v.addcmul_(scale, self._errors_like(v), value=unit_roundoff)

    def _move_batch_norm(self, result: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        """``y = alpha·x + shift``: relative to both terms, for a graph folds them elsewhere."""
        y = result[0]
        x, gamma, beta = args[:3]
        is_training = any(value is True for value in (*args[3:6], *kwargs.values()))
        if is_training or not y.is_floating_point() or y.dim() < 2 or not y.numel():
            per_channel = x.numel() // max(1, x.shape[1]) if x.dim() > 1 else x.numel()
            self._move(y, per_channel)
            return
        mean, variance = args[3:5]
        epsilon = next((a for a in reversed(args) if isinstance(a, float)), 1e-5)
        shape = (1, -1, *(1,) * (y.dim() - 2))
        alpha = (variance + epsilon).rsqrt()
        alpha = alpha if gamma is None else alpha * gamma
        shift = -mean * alpha if beta is None else beta - mean * alpha
        shift = shift.reshape(shape).to(y.dtype)
        unit_roundoff = torch.finfo(y.dtype).eps / 2
        scale = (y - shift).abs_().add_(shift.abs())
        largest = torch.finfo(y.dtype).max
        y.addcmul_(scale.clamp_(max=largest), self._errors_like(y), value=unit_roundoff)

    def _errors_like(self, v: Tensor) -> Tensor:
        """Numbers in [-1, 1] in the memory order of a tensor, so that adding them is one pass."""
        count = v.numel()
        if count > _NUM_DRAWN // 2:
            parts = []
            while count > 0:
                size = min(count, _NUM_DRAWN // 2)
                start = self._random_offset(size)
                parts.append(self._drawn[start : start + size])
                count -= size
            flat = torch.cat(parts)
        else:
            start = self._random_offset(count)
            flat = self._drawn[start : start + count]
        flat = flat.to(v.dtype)
        if v.is_contiguous() or (
            v.dim() == 4 and v.is_contiguous(memory_format=torch.channels_last)
        ):
            return flat.as_strided(v.shape, v.stride(), flat.storage_offset())
        return flat.reshape(v.shape)

    def _random_offset(self, size: int) -> int:
        # The golden ratio's multiples are spread evenly and never repeat; the numbers are random.
        self._offset = (self._offset + 648_055) % _NUM_DRAWN
        return self._offset % (_NUM_DRAWN - size)


def _is_power_of_two(factor: Any) -> bool:
    """Whether a factor or divisor only moves the exponent."""
    if isinstance(factor, Tensor):
        if factor.dim() or factor.device.type == "meta":
            return False
        factor = factor.item()
    return isinstance(factor, (int, float)) and abs(math.frexp(factor)[0]) == 0.5


def _is_exact(v: Tensor) -> bool:
    """Whether nothing was rounded: whole numbers, or fractions whose last bits are all zero.

    Rounded results end in any bits. Arithmetic of whole numbers in floats is exact (the pixels of
    zoo/data/image_preprocessor.py), and a floor behind it would turn a moved bit into a whole step.
    """
    if v.dtype not in _BITS_OF:
        return False
    first = v[(0,) * (v.dim() - 1)] if v.dim() else v
    # A few elements tell nearly always.
    return _ends_in_zeros(first.reshape(-1)[:_NUM_LOOKED_AT]) and _ends_in_zeros(v)


def _ends_in_zeros(v: Tensor) -> bool:
    bits = v.contiguous().view(_BITS_OF[v.dtype])
    is_whole = (v == v.round()) & (v.abs() < 0.5 / torch.finfo(v.dtype).eps)
    return bool(((bits & _LAST_BITS) == 0).logical_or_(is_whole).all())


def _channel_rms(v: Tensor) -> Tensor:
    """The root mean square of each channel, over its finite elements; kept dimensions."""
    axes = tuple(range(2, v.dim())) or (1,)
    count = math.prod(v.shape[axis] for axis in axes)
    rms: Tensor = torch.linalg.vector_norm(v, dim=axes, keepdim=True).div_(math.sqrt(count))
    if not bool(rms.isfinite().all()):
        finite = torch.nan_to_num(v, nan=0.0, posinf=0.0, neginf=0.0)
        largest = finite.abs().amax(axes, keepdim=True).clamp_(min=torch.finfo(v.dtype).tiny)
        rms = (finite / largest).square_().mean(axes, keepdim=True).sqrt_().mul_(largest)
    return rms


def _num_terms(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    """How many terms one element of the result sums; 1 where nothing is summed, or unknown."""
    rule = _LENGTHS.get(name)
    if rule is None:
        return 1
    return max(1.0, float(rule(args, kwargs)))


def _convolution(args: Any, kwargs: Any) -> float:
    weight, stride, is_transposed, groups = args[1], args[3], args[6], args[8]
    if not is_transposed:
        return float(weight[0].numel())
    # Of a transposed one, the kernel's elements that meet at one output element.
    kernel = math.prod(weight.shape[2:]) / math.prod(stride)
    return float(weight.shape[0] / groups * max(1.0, kernel))


def _contraction(left: int) -> Callable[[Any, Any], float]:
    return lambda args, kwargs: float(args[left].shape[-1]) if args[left].dim() else 1.0


def _reduction(args: Any, kwargs: Any) -> float:
    x = args[0]
    axes = kwargs.get(
        "dim", next((a for a in args[1:] if isinstance(a, (int, list, tuple))), None)
    )
    return float(_num_along(x, axes))


def _vector_norm(args: Any, kwargs: Any) -> float:
    axes = kwargs.get("dim", args[2] if len(args) > 2 else None)
    return float(_num_along(args[0], axes))


def _num_along(x: Tensor, axes: Any) -> int:
    if isinstance(axes, bool) or axes is None or axes == []:
        return x.numel()
    axes = [axes] if isinstance(axes, int) else axes
    return math.prod(x.shape[axis] for axis in axes) if x.dim() else 1


def _along_axis(args: Any, kwargs: Any) -> float:
    x = args[0]
    axis = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    return float(x.shape[axis]) if x.dim() and isinstance(axis, int) else float(x.numel())


def _window(args: Any, kwargs: Any) -> float:
    return float(math.prod(args[1]) if isinstance(args[1], (list, tuple)) else args[1])


def _adaptive_window(args: Any, kwargs: Any) -> float:
    x, size = args[0], args[1]
    size = size if isinstance(size, (list, tuple)) else [size]
    own = x.shape[-len(size) :]
    return float(math.prod(-(-n // max(1, k)) for n, k in zip(own, size, strict=True)))


def _interpolation(args: Any, kwargs: Any) -> float:
    """Positions between pixels are rounded, too: by W·u/2 pixels, unless the ratio is exact.

    An error of that size in units of the pixels' difference is what W² terms would make.
    """
    x, size = args[0], args[1]
    if size is None:
        return 4.0
    ratios = [a / b for a, b in zip(size, x.shape[2:], strict=False) if b]
    if all(math.frexp(ratio)[0] == 0.5 for ratio in ratios):
        return 16.0
    return float(max(x.shape[2:])) ** 2


def _grid_sample(args: Any, kwargs: Any) -> float:
    return float(max(args[0].shape[2:])) ** 2


def _transform(args: Any, kwargs: Any) -> float:
    return float(math.prod(args[0].shape[axis] for axis in args[1]))


def _layer_norm(args: Any, kwargs: Any) -> float:
    return float(math.prod(args[1]))


def _group_norm(args: Any, kwargs: Any) -> float:
    return float(args[4] * args[5] / args[6])


def _accumulation(source: int) -> Callable[[Any, Any], float]:
    def rule(args: Any, kwargs: Any) -> float:
        parts = args[source] if len(args) > source else kwargs.get("src", kwargs.get("source"))
        if not isinstance(parts, Tensor) or not isinstance(args[0], Tensor):
            return 1.0
        return 1.0 + parts.numel() / max(1, args[0].numel())

    return rule


def _attention(args: Any, kwargs: Any) -> float:
    return float(max(args[0].shape[-1], args[1].shape[-2]))


def _distance(args: Any, kwargs: Any) -> float:
    return float(args[0].shape[-1])


_LENGTHS: dict[str, Callable[[Any, Any], float]] = {
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm", "linear"), _contraction(0)),
    **dict.fromkeys(
        ("addmm", "baddbmm", "addmv", "addbmm", "_addmm_activation"), _contraction(1)
    ),
    **dict.fromkeys(
        ("mean", "sum", "nansum", "nanmean", "var", "std", "var_mean", "std_mean", "prod"),
        _reduction,
    ),
    **dict.fromkeys(("logsumexp", "special_logsumexp"), _reduction),
    **dict.fromkeys(("norm", "linalg_vector_norm"), _vector_norm),
    **dict.fromkeys(
        (
            *(
                "_softmax",
                "_log_softmax",
                "_safe_softmax",
                "cumsum",
                "cumprod",
                "logcumsumexp",
            ),
            *("softmax", "log_softmax"),
        ),
        _along_axis,
    ),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _window),
    **dict.fromkeys(
        (
            *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
            *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
        ),
        _adaptive_window,
    ),
    **dict.fromkeys(
        (
            *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"),
            *("upsample_bicubic2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
        ),
        _interpolation,
    ),
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d", "grid_sampler"), _grid_sample),
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), _transform),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "rms_norm"), _layer_norm),
    "native_group_norm": _group_norm,
    "index_add": _accumulation(3),
    "scatter_add": _accumulation(3),
    "scatter_reduce": _accumulation(3),
    "index_reduce": _accumulation(3),
    "index_put": _accumulation(2),
    "col2im": lambda args, kwargs: math.prod(args[2]),
    **dict.fromkeys(
        (
            *("_scaled_dot_product_flash_attention_for_cpu",),
            *(
                "_scaled_dot_product_efficient_attention",
                "_scaled_dot_product_flash_attention",
            ),
        ),
        _attention,
    ),
    **dict.fromkeys(("_cdist_forward", "_euclidean_dist", "cdist"), _distance),
}


@contextmanager
def random_rounding(module: nn.Module, seed: int) -> Iterator[None]:
    """Move the roundings of a network's run, without gradients."""
    is_recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    with torch.no_grad(), unfused(is_recurrent=is_recurrent), RandomRounding(seed):
        yield


@contextmanager
def unfused(*, is_recurrent: bool) -> Iterator[None]:
    """Run what PyTorch fuses operation by operation: inside of a fused one nothing can be moved.

    Attention runs as two products and a softmax; a recurrent layer as products and gates.
    """
    backend = torch.backends.mkldnn
    was_enabled = backend.enabled
    try:
        if is_recurrent:
            # Not mkldnn.flags(): that sets TF32 too, which warns on most CPUs.
            backend.enabled = False  # type: ignore[assignment]
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        backend.enabled = was_enabled
