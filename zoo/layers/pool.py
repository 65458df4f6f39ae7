"""Pooling: a window slides over each channel and yields one number per position.

The number of positions is that of :func:`dlzoo.zoo.layers.conv.output_size`.

N   samples          H   height
C   channels         W   width
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlzoo.zoo.layers.layer_registry import register_layer

register_layer(
    "max_pool",
    kind="pool",
    formula="max over the window; padding is ignored",
    source="Jarrett et al. 2009, What is the best multi-stage architecture, section 2.1; "
    "overlapping: Krizhevsky et al. 2012, section 3.4",
    onnx_nodes=("MaxPool",),
    native=("MaxPool", 1),
    onnx="Native, including ceil_mode from opset 10. ONNX Runtime's CPU kernel loses a NaN that "
    "torch keeps.",
)(nn.MaxPool2d)

register_layer(
    "average_pool",
    kind="pool",
    formula="mean over the window; padding counts as zeros unless count_include_pad is False",
    source="LeCun et al. 1998, section II.B (there with a trained factor and bias: subsampling)",
    onnx_nodes=("AveragePool",),
    native=("AveragePool", 1),
    onnx="Native, including ceil_mode from opset 10.",
)(nn.AvgPool2d)

register_layer(
    "global_average_pool",
    kind="pool",
    formula="mean over H and W",
    source="Lin, Chen & Yan 2013, Network in network, section 3.2",
    onnx_nodes=("ReduceMean",),
    native=("GlobalAveragePool", 1),
    onnx="ReduceMean over the two last axes, so any height and width works.",
)(partial(nn.AdaptiveAvgPool2d, 1))

register_layer(
    "adaptive_average_pool",
    kind="pool",
    formula="mean over rows floor(i H / n) to ceil((i + 1) H / n), and so for columns",
    source="He et al. 2014, Spatial pyramid pooling, section 2.3 (bins that follow the size)",
    onnx_nodes=("AveragePool",),
    onnx="One AveragePool if the exported size is a multiple of n, which is then the only "
    "size it works for; otherwise dozens of Gather and Add.",
)(nn.AdaptiveAvgPool2d)


@register_layer(
    "trainable_subsampling",
    kind="pool",
    formula="coefficient_c * (sum over the f x f window) + bias_c; windows do not overlap",
    source="LeCun et al. 1998, section II.B (layers S2 and S4)",
    onnx_nodes=("AveragePool", "Mul", "Add"),
    onnx="AveragePool, then Mul and Add by channel; the factor f^2 is part of the coefficients.",
)
class TrainableSubsampling(nn.Module):
    """Sums over windows that do not overlap, with a trained coefficient and bias per channel.

    ``y_c = coefficient_c * (sum of x_c over the window) + bias_c``

    Source:
        LeCun et al. 1998, "Gradient-based learning applied to document recognition", section
        II.B: 2 x 2 windows; the squashing function that follows is a separate layer here.

    Shape:
        [N, C, H, W] to [N, C, H // f, W // f].

    ONNX:
        AveragePool, Mul, Add.
    """

    def __init__(self, num_channels: int, kernel_size: int = 2) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.kernel_size = kernel_size
        self.coefficient = nn.Parameter(torch.empty(num_channels))
        self.bias = nn.Parameter(torch.empty(num_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from U(-2.4/f^2, 2.4/f^2). Source: the paper, appendix A."""
        bound = 2.4 / self.kernel_size**2
        nn.init.uniform_(self.coefficient, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Sum, scale and shift."""
        mean_NCHW = functional.avg_pool2d(x_NCHW, self.kernel_size)
        factor_C11 = (self.kernel_size**2 * self.coefficient)[:, None, None]
        return factor_C11 * mean_NCHW + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """The sizes, for ``print``."""
        return f"{self.num_channels}, kernel_size={self.kernel_size}"
