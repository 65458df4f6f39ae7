"""SqueezeNet: few parameters, through 1 x 1 convolutions before the 3 x 3 ones.

N   samples          H, W   height, width
C   channels         K      classes
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_224
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

PAPER = Paper(
    title="SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
    authors="Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer",
    year=2016,
    url="https://arxiv.org/abs/1602.07360",
)

#: Maps of each fire module: squeeze, expand 1 x 1 (and as many 3 x 3); None is max pooling.
#: Source: the authors' SqueezeNet_v1.1, which pools earlier than table 1 of the paper.
FIRES_1_1 = (
    None,
    (16, 64),
    (16, 64),
    None,
    (32, 128),
    (32, 128),
    None,
    (48, 192),
    (48, 192),
    (64, 256),
    (64, 256),
)


class Fire(nn.Module):
    """A 1 x 1 convolution to few maps, then 1 x 1 and 3 x 3 in parallel (figure 1).

    Shape:
        [N, in_channels, H, W] to [N, 2 expanded, H, W].

    ONNX:
        Conv, Relu, Concat.
    """

    def __init__(
        self, in_channels: int, squeezed: int, expanded: int, activation: LayerChoice
    ) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.activation = resolve_layer(activation, "activation")()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Squeeze, expand, concatenate."""
        x_NCHW = self.activation(self.squeeze(x_NCHW))
        sides = (self.expand1x1, self.expand3x3)
        return torch.cat([self.activation(expand(x_NCHW)) for expand in sides], 1)


class SqueezeNet(nn.Module):
    """A convolution, fire modules, and a convolution to the classes, whose maps are averaged.

    Source:
        Iandola et al. 2016, section 3; weights start as in torchvision (He's uniform, and
        N(0, 0.01) in the last convolution).

    Shape:
        [N, C, H, W] to [N, K].

    ONNX:
        Conv, Relu, MaxPool, Concat, ReduceMean.
    """

    def __init__(
        self, num_classes: int, num_channels: int, activation: LayerChoice, dropout: float
    ) -> None:
        super().__init__()
        act = resolve_layer(activation, "activation")
        layers: list[nn.Module] = [nn.Conv2d(num_channels, 64, 3, stride=2), act()]
        in_channels = 64
        for row in FIRES_1_1:
            if row is None:
                layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
                continue
            squeezed, expanded = row
            layers.append(Fire(in_channels, squeezed, expanded, activation))
            in_channels = 2 * expanded
        self.features = nn.Sequential(*layers)
        last = nn.Conv2d(in_channels, num_classes, 1)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), last, act(), nn.AdaptiveAvgPool2d(1)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                if layer is last:
                    nn.init.normal_(layer.weight, std=0.01)
                else:
                    nn.init.kaiming_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Logits."""
        return torch.flatten(self.classifier(self.features(x_NCHW)), 1)


@register_model(
    family="SqueezeNet",
    summary="Fire modules (1 x 1, then 1 x 1 and 3 x 3 in parallel); the authors' version 1.1.",
    paper=PAPER,
    input_shape=(3, 224, 224),
    num_classes=1000,
    num_parameters=1_235_496,
    preprocessing=IMAGENET_224,
    labels="imagenet1k",
    weights=(
        PublishedWeights.from_torchvision("squeezenet1_1-b8a52dc0.pth", top1_percent=58.178),
    ),
    min_image_size=(17, 17),
)
def squeezenet1_1(
    *,
    num_classes: int = 1000,
    num_channels: int = 3,
    activation: LayerChoice = "relu",
    dropout: float = 0.5,
) -> nn.Module:
    """SqueezeNet 1.1 with torchvision's state-dict keys."""
    return SqueezeNet(num_classes, num_channels, activation, dropout)
