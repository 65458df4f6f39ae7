"""Initialization schemes of weights, selected by name in a recipe.

Draws are the same with any number of threads and on any processor (normal ones may differ in the
last bit if the mathematical library does). Each weight has its own stream, so its values do not
depend on the rest of the network.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.initialization.kernel_draws import Distribution, fill, fill_orthogonal
from dlzoo.zoo.initialization.kernels import Kernel, find_biases, find_kernels
from dlzoo.zoo.initialization.layer_sequential import set_unit_variance
from dlzoo.zoo.parameter_groups import NORM_LAYERS
from dlzoo.zoo.settings import Settings

Positive = Annotated[float, Field(gt=0)]
Nonlinearity = Literal["linear", "relu", "leaky-relu", "tanh", "sigmoid", "selu"]
#: 5/3 for tanh is from LeCun et al. 1998 (its scaled tanh), 3/4 for SELU from PyTorch.
GAINS = {"linear": 1.0, "relu": math.sqrt(2), "tanh": 5 / 3, "sigmoid": 1.0, "selu": 0.75}


class _Scheme(Settings):
    bias: float = 0.0
    """Initial value of all biases."""

    def apply(self, module: nn.Module, data: Tensor | None = None, seed: int = 0) -> list[str]:
        """Draw all kernels; set biases to their initial value, and norms to 1 and 0.

        Args:
            module: a network on the CPU; changed in place.
            data: a batch of inputs, for schemes that measure the outputs of layers.
            seed: determines the draws.

        Returns:
            Names of the parameters that keep the builder's values because they are none of these,
            such as a class token or a layer scale.

        Raises:
            ArgumentError: the scheme needs data and got none, or cannot use them.
        """
        kernels, biases = find_kernels(module), find_biases(module)
        done = {kernel.parameter for kernel in kernels} | set(biases)
        with torch.no_grad():
            for kernel in kernels:
                self._draw(kernel, seed)
            for bias in biases.values():
                bias.fill_(self.bias)
        for name, part in module.named_modules():
            if isinstance(part, NORM_LAYERS):
                part.reset_parameters()  # type: ignore[operator]
                own = part.named_parameters(name, recurse=False)
                done.update(parameter_name for parameter_name, _ in own)
        return [name for name, _ in module.named_parameters() if name not in done]

    def _draw(self, kernel: Kernel, seed: int) -> None:
        raise NotImplementedError


class DefaultScheme(Settings):
    """The network's own scheme, from its paper: weights as its builder drew them."""

    name: Literal["default"] = "default"

    def apply(self, module: nn.Module, data: Tensor | None = None, seed: int = 0) -> list[str]:
        """Change nothing, and return the names of all parameters."""
        return [name for name, _ in module.named_parameters()]


class UniformScheme(_Scheme):
    """Uniform on ``[-bound, bound]`` for every layer."""

    name: Literal["uniform"] = "uniform"
    bound: Positive = 0.05

    def _draw(self, kernel: Kernel, seed: int) -> None:
        fill(kernel, "uniform", self.bound / math.sqrt(3), seed)


class NormalScheme(_Scheme):
    """Normal with mean 0 for every layer.

    Source:
        Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional
        neural networks", section 5: standard deviation 0.01.
    """

    name: Literal["normal"] = "normal"
    std: Positive = 0.01

    def _draw(self, kernel: Kernel, seed: int) -> None:
        fill(kernel, "normal", self.std, seed)


class TruncatedNormalScheme(_Scheme):
    """Normal with mean 0, redrawn if more than 2 standard deviations away.

    ``std`` is that of the normal distribution; truncation leaves 0.88 times that.

    Source:
        Dosovitskiy et al. 2021 and Liu et al. 2022 start with it, at 0.02.
    """

    name: Literal["truncated-normal"] = "truncated-normal"
    std: Positive = 0.02

    def _draw(self, kernel: Kernel, seed: int) -> None:
        fill(kernel, "truncated-normal", self.std, seed)


class _LeCun(_Scheme):
    """Keeps the size of values: ``variance = gain^2 / fan_in``.

    Source:
        LeCun, Bottou, Orr & Müller 1998, "Efficient BackProp", equation 16.
    """

    gain: Positive = 1.0
    distribution: ClassVar[Distribution]

    def _draw(self, kernel: Kernel, seed: int) -> None:
        fill(kernel, self.distribution, self.gain / math.sqrt(kernel.fan_in), seed)


class LeCunNormal(_LeCun):
    """Normal with LeCun's variance: ``gain^2 / fan_in``."""

    name: Literal["lecun-normal"] = "lecun-normal"
    distribution = "normal"


class LeCunUniform(_LeCun):
    """Uniform with LeCun's variance: ``gain^2 / fan_in``."""

    name: Literal["lecun-uniform"] = "lecun-uniform"
    distribution = "uniform"


class _Xavier(_Scheme):
    """Keeps the size of values and gradients: ``variance = 2 gain^2 / (fan_in + fan_out)``.

    Source:
        Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural
        networks", equation 16.
    """

    gain: Positive = 1.0
    distribution: ClassVar[Distribution]

    def _draw(self, kernel: Kernel, seed: int) -> None:
        std = self.gain * math.sqrt(2 / (kernel.fan_in + kernel.fan_out))
        fill(kernel, self.distribution, std, seed)


class XavierNormal(_Xavier):
    """Normal with Glorot's variance: ``2 gain^2 / (fan_in + fan_out)``."""

    name: Literal["xavier-normal"] = "xavier-normal"
    distribution = "normal"


class XavierUniform(_Xavier):
    """Uniform with Glorot's variance: ``2 gain^2 / (fan_in + fan_out)``."""

    name: Literal["xavier-uniform"] = "xavier-uniform"
    distribution = "uniform"


class _Kaiming(_Scheme):
    """Compensates for the activation: ``variance = gain^2 / fan``.

    The gain is sqrt(2) for ReLU, ``sqrt(2 / (1 + slope^2))`` for leaky ReLU, 5/3 for tanh, 3/4
    for SELU and 1 for the rest.

    Source:
        He et al. 2015, "Delving deep into rectifiers", equations 10, 14 and 15.
    """

    nonlinearity: Nonlinearity = "relu"
    negative_slope: float = Field(default=0.01, ge=0)
    """Slope of leaky ReLU."""
    fan: Literal["in", "out"] = "in"
    """Keep the size of values in the forward pass, or of gradients in the backward pass."""
    distribution: ClassVar[Distribution]

    def _draw(self, kernel: Kernel, seed: int) -> None:
        fan = kernel.fan_in if self.fan == "in" else kernel.fan_out
        if self.nonlinearity == "leaky-relu":
            gain = math.sqrt(2 / (1 + self.negative_slope**2))
        else:
            gain = GAINS[self.nonlinearity]
        fill(kernel, self.distribution, gain / math.sqrt(fan), seed)


class KaimingNormal(_Kaiming):
    """Normal with He's variance: ``gain^2 / fan``."""

    name: Literal["kaiming-normal"] = "kaiming-normal"
    distribution = "normal"


class KaimingUniform(_Kaiming):
    """Uniform with He's variance: ``gain^2 / fan``."""

    name: Literal["kaiming-uniform"] = "kaiming-uniform"
    distribution = "uniform"


class Orthogonal(_Scheme):
    """Rows, or columns if there are fewer, that are orthogonal and of length ``gain``.

    ``W W^T = gain^2 I``, for a kernel as [outputs, inputs x positions], group by group

    Source:
        Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning
        in deep linear neural networks", section 3.
    """

    name: Literal["orthogonal"] = "orthogonal"
    gain: Positive = 1.0

    def _draw(self, kernel: Kernel, seed: int) -> None:
        fill_orthogonal(kernel, self.gain, seed)


class LayerSequentialUnitVariance(_Scheme):
    """Orthogonal kernels, scaled so that every layer's outputs on real data have variance 1.

    Source:
        Mishkin & Matas 2016, "All you need is a good init", algorithm 1.
    """

    name: Literal["lsuv"] = "lsuv"

    def apply(self, module: nn.Module, data: Tensor | None = None, seed: int = 0) -> list[str]:
        """Draw, then scale layer by layer by the outputs on a batch."""
        if data is None or len(data) < 2:
            got = "no batch" if data is None else f"a batch of {len(data)}"
            raise ArgumentError(
                f"Initialization lsuv: got {got}, expected at least 2 inputs to measure variances "
                "on; pass a batch of training data."
            )
        left = super().apply(module, data, seed)
        set_unit_variance(module, data)
        return left

    def _draw(self, kernel: Kernel, seed: int) -> None:
        fill_orthogonal(kernel, 1.0, seed)


Initialization = Annotated[
    DefaultScheme
    | UniformScheme
    | NormalScheme
    | TruncatedNormalScheme
    | LeCunNormal
    | LeCunUniform
    | XavierNormal
    | XavierUniform
    | KaimingNormal
    | KaimingUniform
    | Orthogonal
    | LayerSequentialUnitVariance,
    Field(discriminator="name"),
]
