"""One module an operator, and the inputs on which its spellings are compared and timed.

Shape legend: N samples, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: [N, C, H, W] of what is timed: 26 MB, as behind the first layer of a residual network.
TIMED_SHAPE = (8, 64, 112, 112)
#: Of what is compared; odd sizes, so that no window or group comes out even by chance.
COMPARED_SHAPE = (2, 8, 7, 9)


class Reduction(nn.Module):
    """A function of height and width."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Reduce."""
        return self.function(x_NCHW, (2, 3), keepdim=True)


class Elementwise(nn.Module):
    """A function of one tensor, of the same shape."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.function(x)


class AntialiasedResize(nn.Module):
    """Resize to about half the size."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Resize."""
        height, width = x_NCHW.shape[2:]
        size = (int(height) // 2 + 1, int(width) // 2)
        return F.interpolate(x_NCHW, size=size, mode=self.mode, antialias=True)


def _standardized(x: Tensor, axes: tuple[int, ...], *, keepdim: bool) -> Tensor:
    variance, mean = torch.var_mean(x, axes, keepdim=keepdim)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def _group_norm(shape: tuple[int, ...]) -> nn.Module:
    return nn.GroupNorm(max(2, shape[1] // 4), shape[1])


def _layer_norm(shape: tuple[int, ...]) -> nn.Module:
    return nn.LayerNorm(shape[-1])


#: By operator: what makes a module for inputs of a shape. The first is the one that is timed.
_MODULES: dict[str, tuple[Callable[[tuple[int, ...]], nn.Module], ...]] = {
    "mish": (lambda _: nn.Mish(),),
    "gelu": (lambda _: nn.GELU(),),
    "gelu_tanh": (lambda _: nn.GELU(approximate="tanh"),),
    "silu": (lambda _: nn.SiLU(),),
    "hardswish": (lambda _: nn.Hardswish(),),
    "softplus": (
        lambda _: nn.Softplus(),
        lambda _: nn.Softplus(2.0, 30.0),
        lambda _: nn.Softplus(1.0, 3.0),
    ),
    "log_sigmoid": (lambda _: nn.LogSigmoid(),),
    "log1p": (lambda _: Elementwise(lambda x: torch.log1p(x.abs())),),
    # Beyond 88 float32 overflows, and float64 does not.
    "expm1": (lambda _: Elementwise(lambda x: torch.expm1(x.clamp(max=80.0))),),
    "logaddexp": (lambda _: Elementwise(lambda x: torch.logaddexp(x, x.flip(1))),),
    "logaddexp2": (lambda _: Elementwise(lambda x: torch.logaddexp2(x, x.flip(1))),),
    "logcumsumexp": (lambda _: Elementwise(lambda x: torch.logcumsumexp(x, 1)),),
    "local_response_norm": (
        lambda _: nn.LocalResponseNorm(5),
        lambda _: nn.LocalResponseNorm(4, 0.1, 0.75, 2.0),
        lambda _: nn.LocalResponseNorm(3, 0.1, 0.6, 2.0),
        lambda _: nn.LocalResponseNorm(3, 0.1, 0.5, 2.0),
        lambda _: nn.LocalResponseNorm(2, 0.1, 1.0, 2.0),
    ),
    "group_norm": (_group_norm, lambda shape: nn.GroupNorm(1, shape[1], affine=False)),
    "instance_norm": (
        lambda shape: nn.InstanceNorm2d(shape[1], affine=True),
        lambda shape: nn.InstanceNorm2d(shape[1]),
        lambda shape: nn.InstanceNorm2d(shape[1], track_running_stats=True),
    ),
    "layer_norm": (
        _layer_norm,
        lambda shape: nn.LayerNorm(shape[-2:], elementwise_affine=False),
    ),
    "mean": (lambda _: Reduction(torch.mean), lambda _: nn.AdaptiveAvgPool2d(1)),
    "variance": (lambda _: Reduction(torch.var),),
    "variance_and_mean": (lambda _: Reduction(_standardized),),
    "adaptive_avg_pool2d": (
        lambda _: nn.AdaptiveAvgPool2d((3, 4)),
        lambda _: nn.AdaptiveAvgPool2d((7, 3)),
        lambda _: nn.AdaptiveAvgPool2d(1),
    ),
    "adaptive_max_pool2d": (
        lambda _: nn.AdaptiveMaxPool2d((3, 4)),
        lambda _: nn.AdaptiveMaxPool2d((7, 3)),
        lambda _: nn.AdaptiveMaxPool2d(1),
    ),
    "resize_bilinear_aa": (lambda _: AntialiasedResize("bilinear"),),
    "resize_bicubic_aa": (lambda _: AntialiasedResize("bicubic"),),
    "prelu": (lambda shape: nn.PReLU(shape[1]), lambda _: nn.PReLU()),
    "leaky_relu": (lambda _: nn.LeakyReLU(0.1),),
    "batch_norm": (lambda shape: nn.BatchNorm2d(shape[1]),),
    "max_pool2d": (
        lambda _: nn.MaxPool2d(3, 2, ceil_mode=True),
        lambda _: nn.MaxPool2d(3, 2, padding=1),
    ),
    "avg_pool2d": (
        lambda _: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
        lambda _: nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    ),
    "softmax": (lambda _: nn.Softmax(dim=1), lambda _: nn.Softmax(dim=-1)),
    "dropout": (lambda _: nn.Dropout(),),
}


@dataclass(frozen=True)
class Sample:
    """A module in eval mode, and an example of its input."""

    module: nn.Module
    example: Tensor


def samples_of(operator: str, shape: tuple[int, ...] = COMPARED_SHAPE) -> list[Sample]:
    """The modules of an operator, with parameters other than 0 and 1; none where it has none."""
    made = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for build in _MODULES.get(operator, ()):
            module = build(shape).eval()
            for parameter in module.parameters():
                nn.init.uniform_(parameter, 0.2, 1.5)
            for name, buffer in module.named_buffers():
                if buffer.is_floating_point():
                    nn.init.uniform_(buffer, 0.5 if "var" in name else -1.0, 2.0)
            made.append(Sample(module, torch.randn(shape)))
    return made


def declared_inputs(shape: tuple[int, ...] = COMPARED_SHAPE) -> dict[str, Tensor]:
    """What a spelling must compute as exactly as PyTorch does, by name.

    ``wide`` holds both signs of 1e-42 (a denormal) to 1e4 and both zeros.
    """
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(shape, generator=generator)
    exponents = torch.linspace(-42.0, 4.0, normal.numel() // 2, dtype=torch.float64)
    magnitudes = torch.pow(torch.tensor(10.0, dtype=torch.float64), exponents)
    magnitudes[:2] = 0.0
    wide = torch.cat([magnitudes, -magnitudes]).float().reshape(shape)
    return {"normal": normal, "normal x 50": normal * 50.0, "wide": wide}


def non_finite_inputs(shape: tuple[int, ...] = COMPARED_SHAPE) -> dict[str, Tensor]:
    """Ordinary numbers with one element that is not finite, by name."""
    normal = declared_inputs(shape)["normal"]
    inputs = {}
    for name, value in (("nan", float("nan")), ("inf", float("inf")), ("-inf", -float("inf"))):
        inputs[name] = normal.clone()
        inputs[name].view(-1)[normal.numel() // 3] = value
    return inputs
