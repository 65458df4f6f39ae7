"""Convolution in which an output map depends on only some of the input maps.

N   samples                  H, W   height, width of the images
I   input maps               F      height and width of a kernel
O   output maps              P      connected pairs of an input and an output map
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.layer_registry import register_layer


@register_layer(
    "table_convolution",
    kind="conv",
    formula="y_o = b_o + sum over the input maps i that the table connects with o of w_oi * x_i",
    source="LeCun et al. 1998, section II.B and table I",
    onnx_nodes=("Conv",),
    onnx="One Conv whose kernel is zero where the table has no connection: the exporter "
    "computes it from the connected kernels, which are constants by then.",
)
class TableConvolution(nn.Module):
    """Convolution along a connection table; ``weight`` has only the connected kernels.

    ``y_o = b_o + sum_{i in table[o]} w_oi * x_i``

    Source:
        LeCun et al. 1998, "Gradient-based learning applied to document recognition", section
        II.B: breaks the symmetry, so that maps learn different features.

    Shape:
        [N, I, H, W] to [N, O, H - F + 1, W - F + 1].

    ONNX:
        Conv, with zeros for pairs that are not connected.

    Raises:
        ArgumentError: the table connects an output with no input, or with one that does not
            exist or comes twice.
    """

    #: [O, I]
    pairs: Tensor

    def __init__(
        self, in_channels: int, table: Sequence[Sequence[int]], kernel_size: int
    ) -> None:
        super().__init__()
        num_pairs = sum(len(inputs) for inputs in table)
        # The pair's number if there is one; the number after the last is a kernel of zeros.
        pairs = torch.full((len(table), in_channels), num_pairs)
        number = 0
        for output, inputs in enumerate(table):
            if not inputs or len({*inputs} & {*range(in_channels)}) < len(inputs):
                raise ArgumentError(
                    f"Connection table: got {list(inputs)} for output map {output}, expected "
                    f"different input maps from 0 to {in_channels - 1}; correct that row."
                )
            for channel in inputs:
                pairs[output, channel] = number
                number += 1
        self.in_channels = in_channels
        self.fan_in = tuple(len(inputs) * kernel_size**2 for inputs in table)
        self.register_buffer("pairs", pairs, persistent=False)
        self.weight = nn.Parameter(torch.empty(num_pairs, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(table)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from U(-2.4/f, 2.4/f), f the inputs of a unit. Source: the paper, appendix A."""
        first = 0
        for output, fan_in in enumerate(self.fan_in):
            last = first + fan_in // self.weight[0].numel()
            nn.init.uniform_(self.weight[first:last], -2.4 / fan_in, 2.4 / fan_in)
            nn.init.uniform_(self.bias[output], -2.4 / fan_in, 2.4 / fan_in)
            first = last

    def dense_weight(self) -> Tensor:
        """The kernel [O, I, F, F], with zeros for pairs that are not connected."""
        one_zero_more = functional.pad(self.weight, (0, 0, 0, 0, 0, 1))
        chosen = one_zero_more.index_select(0, self.pairs.flatten())
        return chosen.reshape(*self.pairs.shape, *self.weight.shape[1:])

    def forward(self, x_NIHW: Tensor) -> Tensor:
        """Convolve, without padding."""
        return functional.conv2d(x_NIHW, self.dense_weight(), self.bias)

    def extra_repr(self) -> str:
        """The sizes, for ``print``."""
        num_pairs, size = self.weight.shape[:2]
        return f"{self.in_channels}, {len(self.bias)}, {num_pairs} pairs, kernel_size=({size}, {size})"
