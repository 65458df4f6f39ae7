"""Activations: elementwise functions that keep the shape.

x   any shape
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from dlzoo.zoo.layers.layer_registry import register_layer

#: LeCun et al. 1998, section II.B and appendix A: f(1) = 1, f(-1) = -1, and the second
#: derivative is largest in magnitude at 1 and -1, so targets of 1 and -1 do not saturate.
LECUN_AMPLITUDE = 1.7159
LECUN_SLOPE = 2 / 3


class ScaledTanh(nn.Module):
    """The squashing function of LeNet-5.

    ``f(x) = A tanh(S x)``, A = 1.7159, S = 2/3

    Source:
        LeCun et al. 1998, "Gradient-based learning applied to document recognition",
        equation 6 and appendix A.

    Shape:
        Any, kept.

    ONNX:
        Mul, Tanh, Mul.
    """

    def __init__(self, amplitude: float = LECUN_AMPLITUDE, slope: float = LECUN_SLOPE) -> None:
        super().__init__()
        self.amplitude = amplitude
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        return self.amplitude * torch.tanh(self.slope * x)

    def extra_repr(self) -> str:
        """The two constants, for ``print``."""
        return f"amplitude={self.amplitude}, slope={self.slope:.4g}"


register_layer(
    "relu",
    kind="activation",
    formula="max(0, x)",
    source="Nair & Hinton 2010, Rectified linear units improve restricted Boltzmann machines",
    onnx_nodes=("Relu",),
    native=("Relu", 1),
    onnx="Native; ONNX Runtime fuses it into the convolution before it.",
)(nn.ReLU)

register_layer(
    "relu6",
    kind="activation",
    formula="min(max(0, x), 6)",
    source="Krizhevsky 2010, Convolutional deep belief networks on CIFAR-10",
    onnx_nodes=("Clip",),
    native=("Clip", 1),
    onnx="Clip; its bounds are inputs from opset 11 on. Fused into the convolution before it.",
)(nn.ReLU6)

register_layer(
    "sigmoid",
    kind="activation",
    formula="1 / (1 + exp(-x))",
    source="Rumelhart, Hinton & Williams 1986, Learning representations by back-propagating errors",
    onnx_nodes=("Sigmoid",),
    native=("Sigmoid", 1),
    onnx="Native.",
)(nn.Sigmoid)

register_layer(
    "tanh",
    kind="activation",
    formula="(exp(x) - exp(-x)) / (exp(x) + exp(-x))",
    source="LeCun, Bottou, Orr & Mueller 1998, Efficient BackProp, section 4.4",
    onnx_nodes=("Tanh",),
    native=("Tanh", 1),
    onnx="Native.",
)(nn.Tanh)

register_layer(
    "scaled_tanh",
    kind="activation",
    formula="1.7159 tanh(2x/3)",
    source="LeCun et al. 1998, Gradient-based learning, equation 6 and appendix A",
    onnx_nodes=("Mul", "Tanh", "Mul"),
    onnx="No operator of its own: two Mul around Tanh.",
)(ScaledTanh)

register_layer(
    "leaky_relu",
    kind="activation",
    formula="x for x > 0, else negative_slope * x (0.01 by default)",
    source="Maas, Hannun & Ng 2013, Rectifier nonlinearities improve acoustic models, equation 2",
    onnx_nodes=("LeakyRelu",),
    native=("LeakyRelu", 1),
    onnx="Native; ONNX Runtime fuses it into the convolution before it.",
)(nn.LeakyReLU)

register_layer(
    "prelu",
    kind="activation",
    formula="x for x > 0, else a * x; a is learned from 0.25 on, a single one or one per channel",
    source="He et al. 2015, Delving deep into rectifiers, equation 1",
    onnx_nodes=("PRelu",),
    native=("PRelu", 1),
    onnx="Native; one slope per channel is stored as [C, 1, 1], so that it broadcasts.",
)(nn.PReLU)

register_layer(
    "swish",
    kind="activation",
    formula="x / (1 + exp(-x))",
    source="Ramachandran, Zoph & Le 2017, Searching for activation functions (beta = 1: SiLU)",
    onnx_nodes=("Sigmoid", "Mul"),
    native=("Swish", 24),
    onnx="Sigmoid and Mul, which ONNX Runtime fuses to QuickGelu with alpha 1.",
)(nn.SiLU)

register_layer(
    "gelu",
    kind="activation",
    formula="x (1 + erf(x / sqrt(2))) / 2",
    source="Hendrycks & Gimpel 2016, Gaussian error linear units, section 2",
    onnx_nodes=("Gelu",),
    native=("Gelu", 20),
    onnx="Gelu from opset 20, 5 nodes below. In torch the value at +inf is NaN.",
)(nn.GELU)

register_layer(
    "gelu_tanh",
    kind="activation",
    formula="x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2",
    source="Hendrycks & Gimpel 2016, Gaussian error linear units, section 2",
    onnx_nodes=("Gelu",),
    native=("Gelu", 20),
    onnx='Gelu with approximate="tanh" from opset 20, 8 nodes below.',
)(partial(nn.GELU, approximate="tanh"))

register_layer(
    "mish",
    kind="activation",
    formula="x tanh(ln(1 + exp(x)))",
    source="Misra 2019, Mish: a self regularized non-monotonic activation function, equation 1",
    onnx_nodes=("Mish",),
    native=("Mish", 18),
    onnx="Native from opset 18, but ONNX Runtime has no kernel: it runs Softplus, Tanh, Mul.",
)(nn.Mish)

register_layer(
    "hardswish",
    kind="activation",
    formula="x min(max(0, x + 3), 6) / 6",
    source="Howard et al. 2019, Searching for MobileNetV3, section 5.2",
    onnx_nodes=("HardSwish",),
    native=("HardSwish", 14),
    onnx="Native from opset 14; ONNX Runtime runs its body, HardSigmoid and Mul.",
)(nn.Hardswish)
