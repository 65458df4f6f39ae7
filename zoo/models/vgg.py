"""VGG: stacks of 3 x 3 convolutions between poolings.

N   samples          H, W   height, width
C   channels         K      classes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.preprocessing import IMAGENET_224
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

PAPER = Paper(
    title="Very Deep Convolutional Networks for Large-Scale Image Recognition",
    authors="Simonyan, Zisserman",
    year=2014,
    url="https://arxiv.org/abs/1409.1556",
)

#: Maps of each of the five stages; a stage ends with 2 x 2 max pooling. Source: table 1.
MAPS = (64, 128, 256, 512, 512)
#: Width of the fully connected layers except the last, and height and width of the maps before
#: them: 224 / 2^5. Source: table 1.
HIDDEN_WIDTH = 4096
POOLED_SIZE = 7

#: Convolutions in each stage, by number of weight layers (they and three fully connected).
#: Source: table 1, columns A, B, D and E.
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """A column of table 1, with torchvision's module names.

    Source:
        Simonyan & Zisserman 2014, table 1. Weights start as in torchvision: He's
        normal by fan-out for convolutions, N(0, 0.01) for the fully connected.

    Shape:
        [N, C, H, W] to [N, K], 224 x 224 by default; adaptive pooling allows others.

    ONNX:
        Conv, Relu, MaxPool, Gemm; at 224 x 224 the adaptive pooling is an AveragePool of 1 x 1.
    """

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int,
        num_channels: int,
        norm: LayerChoice | None,
        activation: LayerChoice,
        dropout: float,
        widths: Sequence[int],
        hidden_width: int,
        pooled_size: int,
    ) -> None:
        super().__init__()
        if len(widths) != len(MAPS):
            raise ArgumentError(
                f"`widths` got {list(widths)}, expected {len(MAPS)} numbers, one for each stage."
            )
        act = resolve_layer(activation, "activation")
        layers: list[nn.Module] = []
        in_channels = num_channels
        for maps, num_convolutions in zip(widths, CONVOLUTIONS[depth], strict=True):
            for _ in range(num_convolutions):
                layers.append(nn.Conv2d(in_channels, maps, 3, padding=1))
                if norm is not None:
                    layers.append(resolve_layer(norm, "norm")(maps))
                layers.append(act())
                in_channels = maps
            layers.append(nn.MaxPool2d(2, stride=2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((pooled_size, pooled_size))
        self.classifier = nn.Sequential(
            nn.Linear(in_channels * pooled_size**2, hidden_width),
            act(),
            nn.Dropout(dropout),
            nn.Linear(hidden_width, hidden_width),
            act(),
            nn.Dropout(dropout),
            nn.Linear(hidden_width, num_classes),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Logits."""
        x_NCHW = self.avgpool(self.features(x_NCHW))
        logits_NK: Tensor = self.classifier(torch.flatten(x_NCHW, 1))
        return logits_NK


def _column(
    depth: int,
    num_parameters: int,
    sha256: str,
    top1_percent: float,
    *,
    default_norm: LayerChoice | None = None,
) -> Callable[..., nn.Module]:
    """Register the builder of one column of table 1, with or without normalization."""

    def build(
        *,
        num_classes: int = 1000,
        num_channels: int = 3,
        norm: LayerChoice | None = default_norm,
        activation: LayerChoice = "relu",
        dropout: float = 0.5,
        widths: Sequence[int] = MAPS,
        hidden_width: int = HIDDEN_WIDTH,
        pooled_size: int = POOLED_SIZE,
    ) -> nn.Module:
        return VGG(
            depth,
            num_classes=num_classes,
            num_channels=num_channels,
            norm=norm,
            activation=activation,
            dropout=dropout,
            widths=widths,
            hidden_width=hidden_width,
            pooled_size=pooled_size,
        )

    name = f"vgg{depth}" if default_norm is None else f"vgg{depth}_bn"
    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""VGG with {depth} weight layers; norm is {default_norm} by default.

    The last three arguments adapt it to small images: five poolings leave one of 32 x 32 pixels.

    Args:
        num_classes: outputs of the last layer.
        num_channels: channels of the images.
        norm: name of a norm, its builder, called with the number of channels, or None.
        activation: name of an activation, or its builder.
        dropout: probability of dropout before each fully connected layer except the first.
        widths: maps of the five stages.
        hidden_width: width of the fully connected layers except the last.
        pooled_size: height and width of the maps before the fully connected layers.

    Raises:
        ArgumentError: the number of widths is not five.
    """
    weights = PublishedWeights.from_torchvision(
        f"{name}-{sha256}.pth", top1_percent=top1_percent
    )
    kind = "as in the paper" if default_norm is None else "each batch-normalized"
    return register_model(
        family="VGG",
        summary=f"{depth} weight layers: 3 x 3 convolutions, {kind}, and three fully connected.",
        paper=PAPER,
        input_shape=(3, 224, 224),
        num_classes=1000,
        num_parameters=num_parameters,
        preprocessing=IMAGENET_224,
        labels="imagenet1k",
        weights=(weights,),
        min_image_size=(32, 32),
    )(build)


vgg11 = _column(11, 132_863_336, "8a719046", 69.020)
vgg11_bn = _column(11, 132_868_840, "6002323d", 70.370, default_norm="batch_norm")
vgg13 = _column(13, 133_047_848, "19584684", 69.928)
vgg13_bn = _column(13, 133_053_736, "abd245e5", 71.586, default_norm="batch_norm")
vgg16 = _column(16, 138_357_544, "397923af", 71.592)
vgg16_bn = _column(16, 138_365_992, "6c64b313", 73.360, default_norm="batch_norm")
vgg19 = _column(19, 143_667_240, "dcbb9e9d", 72.376)
vgg19_bn = _column(19, 143_678_248, "c79401a0", 74.218, default_norm="batch_norm")
