"""A layer against its formula in float64 NumPy: the values, and the gradients.

The gradient of a formula f in direction v is Im f(x + ihv) / h, which has no cancellation, so h
can be so small that nothing of the second order is left (Squire & Trapp 1998, "Using complex
variables to estimate derivatives of real functions"). Formulas must therefore be written so
that they work on complex numbers: ``d * d`` for squares, never ``abs``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

Array = np.ndarray[Any, Any]
#: (input, the layer's parameters and buffers by name) -> output.
Formula = Callable[[Array, Mapping[str, Array]], Array]

STEP = 1e-100
#: Both sides are float64 (2e-16) and sum up to some hundred terms.
TOLERANCE = 1e-11


def _against_formula(
    layer: nn.Module, formula: Formula, shape: tuple[int, ...], seed: int, scale: float = 1.0
) -> None:
    """Values and gradients of a layer agree with a formula, on normal inputs and weights."""
    rng = np.random.default_rng(seed)
    layer = layer.double()
    x = torch.from_numpy(rng.normal(size=shape) * scale).requires_grad_()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=tuple(parameter.shape))))
    # Running statistics change in the forward pass: the formula sees them as they were.
    constants = {name: buffer.numpy().copy() for name, buffer in layer.named_buffers()}
    weights = {name: value.detach().numpy().copy() for name, value in layer.named_parameters()}

    y = layer(x)
    expected = formula(x.detach().numpy(), {**constants, **weights})
    assert tuple(y.shape) == expected.shape
    error = np.abs(y.detach().numpy() - expected).max(initial=0.0)
    assert error <= TOLERANCE * (1 + np.abs(expected).max(initial=0.0))

    cotangent = rng.normal(size=expected.shape)
    variables = {"input": x, **dict(layer.named_parameters())}
    loss = (y * torch.from_numpy(cotangent)).sum()
    gradients = torch.autograd.grad(loss, list(variables.values()))
    for (name, variable), gradient in zip(variables.items(), gradients, strict=True):
        direction = rng.normal(size=tuple(variable.shape))
        step = 1j * STEP * direction
        if name == "input":
            moved = formula(x.detach().numpy() + step, {**constants, **weights})
        else:
            moved = formula(
                x.detach().numpy(), {**constants, **weights, name: weights[name] + step}
            )
        expected_slope = (cotangent * moved.imag / STEP).sum()
        terms = gradient.numpy() * direction
        allowed = TOLERANCE * (1 + np.abs(terms).sum() + abs(expected_slope))
        assert abs(terms.sum() - expected_slope) <= allowed, name


@pytest.fixture(scope="session")
def against_formula() -> Callable[..., None]:
    """The check itself, for tests whose shapes Hypothesis draws."""
    return _against_formula
