"""Parts of the Inception family: the block of four branches, its input and its auxiliary head.

N   samples          H, W   height, width
C   channels         K      classes

Source:
    Szegedy et al. 2014, "Going Deeper with Convolutions", figure 2b and section 5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from dlzoo.zoo.layers.conv import ConvolutionUnit
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer


class InputRange(nn.Module):
    """Rescales from ImageNet's mean and deviation to the range [-1, 1] of Inception's training.

    ``y_c = x_c std_c / 0.5 + (mean_c - 0.5) / 0.5``

    Shape:
        [N, 3, H, W], kept.

    ONNX:
        Mul, Add.
    """

    #: [C, 1, 1]
    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        scale = torch.tensor([std / 0.5 for std in IMAGENET_STD])
        shift = torch.tensor([(mean - 0.5) / 0.5 for mean in IMAGENET_MEAN])
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Scale and shift each channel."""
        return x_NCHW * self.scale + self.shift


class Inception(nn.Module):
    """Four parallel branches whose maps are concatenated (figure 2b).

    Shape:
        [N, in_channels, H, W] to [N, sum of the four branches' maps, H, W].

    ONNX:
        Conv, Relu, MaxPool, Concat.
    """

    def __init__(
        self,
        in_channels: int,
        maps: tuple[int, int, int, int, int, int],
        *,
        large_kernel: int,
        norm: LayerChoice | None,
        activation: LayerChoice,
    ) -> None:
        super().__init__()

        def unit(in_channels: int, out_channels: int, kernel_size: int) -> ConvolutionUnit:
            return ConvolutionUnit(
                in_channels, out_channels, kernel_size, norm=norm, activation=activation
            )

        direct, reduced3, maps3, reduced5, maps5, projected = maps
        self.branch1 = unit(in_channels, direct, 1)
        self.branch2 = nn.Sequential(unit(in_channels, reduced3, 1), unit(reduced3, maps3, 3))
        self.branch3 = nn.Sequential(
            unit(in_channels, reduced5, 1), unit(reduced5, maps5, large_kernel)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), unit(in_channels, projected, 1)
        )
        self.out_channels = direct + maps3 + maps5 + projected

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Concatenate all branches along the channels."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x_NCHW) for branch in branches], 1)


class AuxiliaryHead(nn.Module):
    """A small classifier on an intermediate layer, for training only (section 5).

    Shape:
        [N, in_channels, 14, 14] to [N, K].
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        pool: nn.Module,
        norm: LayerChoice | None,
        activation: LayerChoice,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.conv = ConvolutionUnit(in_channels, 128, 1, norm=norm, activation=activation)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.activation = resolve_layer(activation, "activation")()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Compute the logits of this head."""
        x_NCHW = self.conv(self.pool(x_NCHW))
        x_ND = self.activation(self.fc1(torch.flatten(x_NCHW, 1)))
        logits_NK: Tensor = self.fc2(self.dropout(x_ND))
        return logits_NK
