"""The optimizers that a recipe selects by name: torch's, with bounds on every number.

Left out: ``LBFGS`` evaluates the loss several times per step, so a step has no single batch,
gradient or loss; ``SparseAdam`` accepts only sparse gradients; ``Muon`` accepts only matrices,
but a convolution's weight has four axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from dlzoo.zoo.parameter_groups import ParameterGroup
from dlzoo.zoo.settings import Settings

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class _Optimizer(Settings):
    #: torch's class; its arguments have the names of the fields.
    torch_class: ClassVar[type[torch.optim.Optimizer]]

    lr: Positive
    """Learning rate where the schedule's factor is 1."""
    weight_decay: NotNegative = 0.0
    """Strength with which each step pulls weights towards zero."""
    decay_norm_and_bias: bool = False
    """Also apply weight decay to norms' scales and shifts, biases and other vectors."""

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """Make the optimizer; groups keep their ``lr_scale`` for :func:`set_learning_rate`."""
        arguments = self._arguments()
        made: list[dict[str, Any]] = []
        for group in groups:
            options: dict[str, Any] = {"lr": self.lr * group["lr_scale"]}
            if "weight_decay" in arguments:
                is_decayed = group["is_weights"] or self.decay_norm_and_bias
                options["weight_decay"] = self.weight_decay if is_decayed else 0.0
            made.append({"params": group["params"], "lr_scale": group["lr_scale"], **options})
        return self.torch_class(made, **arguments)

    def _arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude={"name", "decay_norm_and_bias"})


class SGD(_Optimizer):
    """Stochastic gradient descent, with momentum.

    ``v <- momentum v + (1 - dampening) g``, ``w <- w - lr v``, g the gradient plus
    ``weight_decay w``; Nesterov's form steps along ``g + momentum v``

    Source:
        Robbins & Monro 1951, "A stochastic approximation method"; Sutskever et al. 2013, "On the
        importance of initialization and momentum in deep learning", section 2.
    """

    torch_class = torch.optim.SGD
    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.1
    momentum: Share = 0.9
    dampening: Share = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _check_nesterov(self) -> SGD:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")
        return self


class _MomentEstimates(_Optimizer):
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Share of the running means of the gradient and of its square that each step keeps."""
    eps: Positive = 1e-8


class Adam(_MomentEstimates):
    """Adaptive moment estimation, with weight decay as part of the gradient.

    ``w <- w - lr m / (sqrt(v) + eps)``, m and v running means of the gradient and of its
    square, corrected for their start at 0

    Source:
        Kingma & Ba 2015, "Adam", algorithm 1; amsgrad: Reddi et al. 2018, "On the convergence of
        Adam and beyond", algorithm 2.
    """

    torch_class = torch.optim.Adam
    name: Literal["adam"] = "adam"
    lr: Positive = 1e-3
    amsgrad: bool = False
    """Divide by the largest mean square so far."""


class AdamW(_MomentEstimates):
    """Adam with weight decay separate from the gradient.

    ``w <- w - lr (m / (sqrt(v) + eps) + weight_decay w)``

    Source:
        Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """

    torch_class = torch.optim.AdamW
    name: Literal["adamw"] = "adamw"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    amsgrad: bool = False
    """Divide by the largest mean square so far."""


class Adamax(_MomentEstimates):
    """Adam that divides by the largest recent gradient instead of a root mean square.

    ``w <- w - lr m / u``, ``u <- max(beta2 u, |g|)``

    Source:
        Kingma & Ba 2015, "Adam", algorithm 2.
    """

    torch_class = torch.optim.Adamax
    name: Literal["adamax"] = "adamax"
    lr: Positive = 2e-3


class NAdam(_MomentEstimates):
    """Adam with Nesterov's momentum.

    Source:
        Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2.
    """

    torch_class = torch.optim.NAdam
    name: Literal["nadam"] = "nadam"
    lr: Positive = 2e-3
    momentum_decay: Share = 4e-3
    decoupled_weight_decay: bool = False
    """Decouple weight decay from the gradient, as AdamW does."""


class RAdam(_MomentEstimates):
    """Adam with small first steps, while its mean square is not yet reliable.

    Source:
        Liu et al. 2020, "On the variance of the adaptive learning rate and beyond", algorithm 2.
    """

    torch_class = torch.optim.RAdam
    name: Literal["radam"] = "radam"
    lr: Positive = 1e-3
    decoupled_weight_decay: bool = False
    """Decouple weight decay from the gradient, as AdamW does."""


class RMSprop(_Optimizer):
    """Gradients divided by the root of their running mean square.

    ``v <- alpha v + (1 - alpha) g^2``, ``w <- w - lr g / (sqrt(v) + eps)``

    Source:
        Tieleman & Hinton 2012, "Neural networks for machine learning", lecture 6.5; centered:
        Graves 2013, "Generating sequences with recurrent neural networks", equation 40.
    """

    torch_class = torch.optim.RMSprop
    name: Literal["rmsprop"] = "rmsprop"
    lr: Positive = 1e-2
    alpha: Share = 0.99
    eps: Positive = 1e-8
    momentum: Share = 0.0
    centered: bool = False
    """Subtract the square of the mean gradient from the mean square."""


class Adagrad(_Optimizer):
    """Gradients divided by the root of the sum of all their squares.

    ``v <- v + g^2``, ``w <- w - lr g / (sqrt(v) + eps)``

    Source:
        Duchi, Hazan & Singer 2011, "Adaptive subgradient methods for online learning and
        stochastic optimization", section 1.1.
    """

    torch_class = torch.optim.Adagrad
    name: Literal["adagrad"] = "adagrad"
    lr: Positive = 1e-2
    lr_decay: NotNegative = 0.0
    """Decay of the learning rate: step t has lr / (1 + lr_decay t)."""
    initial_accumulator_value: NotNegative = 0.0
    eps: Positive = 1e-10


class Adadelta(_Optimizer):
    """Steps in the units of the weights, so that no learning rate is needed.

    ``w <- w - lr d``, ``d = g sqrt(u + eps) / sqrt(v + eps)``, v and u running means of g^2 and
    of d^2

    Source:
        Zeiler 2012, "ADADELTA: an adaptive learning rate method", algorithm 1.
    """

    torch_class = torch.optim.Adadelta
    name: Literal["adadelta"] = "adadelta"
    lr: Positive = 1.0
    rho: Share = 0.9
    eps: Positive = 1e-6


class ASGD(_Optimizer):
    """Stochastic gradient descent with steps that decay as a power of time.

    ``w <- (1 - lambd eta) w - eta g``, ``eta = lr / (1 + lambd lr t)^alpha``

    It also keeps a mean of the weights, which is not used here: set ``weight_average``.

    Source:
        Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging"; Bottou
        2010, "Large-scale machine learning with stochastic gradient descent", section 5.
    """

    torch_class = torch.optim.ASGD
    name: Literal["asgd"] = "asgd"
    lr: Positive = 1e-2
    lambd: NotNegative = 1e-4
    alpha: NotNegative = 0.75


class Rprop(_Optimizer):
    """Steps from the signs of gradients; a weight's step grows while the sign stays the same.

    For full batches, because signs of mini-batch gradients are mostly noise. No weight decay.

    Source:
        Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation learning:
        the RPROP algorithm", section D.
    """

    torch_class = torch.optim.Rprop
    name: Literal["rprop"] = "rprop"
    lr: Positive = 1e-2
    weight_decay: Annotated[float, Field(ge=0, le=0)] = 0.0
    etas: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]] = (
        0.5,
        1.2,
    )
    """Factors of a step after a change of sign, and without a change."""
    step_sizes: tuple[Positive, Positive] = (1e-6, 50.0)
    """Smallest and largest step."""

    def _arguments(self) -> dict[str, Any]:
        arguments = super()._arguments()
        del arguments["weight_decay"]
        return arguments


class Adafactor(_Optimizer):
    """Adam without momentum, with mean squares of matrices kept by row and column.

    Source:
        Shazeer & Stern 2018, "Adafactor: adaptive learning rates with sublinear memory cost",
        algorithm 4.
    """

    torch_class = torch.optim.Adafactor
    name: Literal["adafactor"] = "adafactor"
    lr: Positive = 1e-2
    beta2_decay: Annotated[float, Field(lt=0)] = -0.8
    """Exponent of time with which the running mean forgets."""
    d: Annotated[float, Field(ge=1)] = 1.0
    """Root mean square above which a step is clipped."""


Optimizer = Annotated[
    SGD
    | AdamW
    | Adam
    | Adamax
    | NAdam
    | RAdam
    | RMSprop
    | Adagrad
    | Adadelta
    | ASGD
    | Rprop
    | Adafactor,
    Field(discriminator="name"),
]


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate to ``lr`` times the group's ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
