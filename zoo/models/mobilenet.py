"""MobileNetV2: shortcuts between narrow layers, filtering in wide ones.

N   samples          H   height          K   classes
C   channels         W   width

Source:
    Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear
    Bottlenecks, CVPR 2018, Tables 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_224, IMAGENET_224_RESIZE_232
from dlzoo.zoo.layers.conv import convolution
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

MOBILENET_V2_PAPER = Paper(
    title="MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    authors="Mark Sandler, Andrew Howard, Menglong Zhu, Andrey Zhmoginov, Liang-Chieh Chen",
    year=2018,
    url="https://arxiv.org/abs/1801.04381",
)

#: Table 2: expansion factor t, output channels c, number of blocks n, stride s of the first.
INVERTED_RESIDUALS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
FIRST_WIDTH = 32
LAST_WIDTH = 1280


def round_to_multiple(width: float, multiple: int = 8) -> int:
    """The multiple nearest to a width, at least one, and at least nine tenths of the width.

    Widths that are multiples of 8 fill vector registers.

    Source:
        TensorFlow's slim ``mobilenet.py``, ``make_divisible``.

    >>> round_to_multiple(32 * 0.75), round_to_multiple(32 * 0.35)
    (24, 16)
    """
    nearest = max(multiple, int(width + multiple / 2) // multiple * multiple)
    return nearest if nearest >= 0.9 * width else nearest + multiple


class ConvNormActivation(nn.Sequential):
    """Convolution without bias, norm, activation.

    Shape:
        [N, in_channels, H, W] to [N, out_channels, ceil(H/stride), ceil(W/stride)].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__(
            convolution(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding="same",
                groups=groups,
                bias=False,
            ),
            norm(out_channels),
            activation(),
        )


class InvertedResidual(nn.Module):
    """1x1 to t times the channels, 3x3 depthwise, 1x1 back without activation.

    y = x + F(x) where input and output have the same shape, else F(x).

    Source:
        Table 1 and figure 4 (d).

    Shape:
        [N, in_channels, H, W] to [N, out_channels, ceil(H/stride), ceil(W/stride)].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        expansion: int,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential()
        if expansion != 1:
            self.conv.append(
                ConvNormActivation(in_channels, hidden, 1, norm=norm, activation=activation)
            )
        self.conv.append(
            ConvNormActivation(
                hidden,
                hidden,
                3,
                stride=stride,
                groups=hidden,
                norm=norm,
                activation=activation,
            )
        )
        self.conv.append(nn.Conv2d(hidden, out_channels, 1, bias=False))
        self.conv.append(norm(out_channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW: Tensor = self.conv(x_NCHW)
        return x_NCHW + y_NCHW if self.has_shortcut else y_NCHW


class MobileNetV2(nn.Module):
    """Inverted residuals between a strided stem and a wide 1x1 convolution.

    Convolutions start from He's normal initialization over the fan out, the classifier from
    N(0, 0.01), as in torchvision.

    Source:
        Table 2.

    Shape:
        [N, 3, H, W] to logits [N, K], any H and W.

    ONNX:
        Conv (depthwise: group = channels), BatchNormalization, Clip for ReLU6, Add, ReduceMean
        or GlobalAveragePool, Gemm.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width_multiplier: float,
        dropout: float,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        channels = round_to_multiple(FIRST_WIDTH * width_multiplier)
        self.features = nn.Sequential(
            ConvNormActivation(3, channels, 3, stride=2, norm=norm, activation=activation)
        )
        for expansion, width, num_blocks, first_stride in INVERTED_RESIDUALS:
            out_channels = round_to_multiple(width * width_multiplier)
            for stride in [first_stride] + [1] * (num_blocks - 1):
                self.features.append(
                    InvertedResidual(
                        channels,
                        out_channels,
                        stride=stride,
                        expansion=expansion,
                        norm=norm,
                        activation=activation,
                    )
                )
                channels = out_channels
        # Section 4, "Trade-off hyper parameters": below a multiplier of 1 the last convolution keeps its width.
        last_width = round_to_multiple(LAST_WIDTH * max(1.0, width_multiplier))
        self.features.append(
            ConvNormActivation(channels, last_width, 1, norm=norm, activation=activation)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(last_width, num_classes)
        )

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.features(x_NCHW)
        logits_NK: Tensor = self.classifier(self.flatten(self.avgpool(x_NCHW)))
        return logits_NK


@register_model(
    family="MobileNet",
    summary="small network for phones: inverted residuals",
    paper=MOBILENET_V2_PAPER,
    input_shape=(3, 224, 224),
    num_classes=1000,
    num_parameters=3_504_872,
    preprocessing=IMAGENET_224,
    labels="imagenet1k",
    weights=(
        PublishedWeights.from_torchvision("mobilenet_v2-b0353104.pth", top1_percent=71.878),
        PublishedWeights.from_torchvision(
            "mobilenet_v2-7ebf99e0.pth",
            name="imagenet_v2",
            top1_percent=72.154,
            preprocessing=IMAGENET_224_RESIZE_232,
        ),
    ),
    min_image_size=(1, 1),
)
def mobilenet_v2(
    *,
    num_classes: int = 1000,
    width_multiplier: float = 1.0,
    dropout: float = 0.2,
    norm: LayerChoice = "batch_norm",
    activation: LayerChoice = "relu6",
) -> nn.Module:
    """MobileNetV2.

    Args:
        num_classes: outputs of the last layer.
        width_multiplier: scales the channels of every layer (section 4).
        dropout: probability of dropping a feature before the classifier, in training.
        norm: name of a norm, or its builder, called with the number of channels.
        activation: name of an activation, or its builder; ReLU6 keeps low-precision arithmetic in range.
    """
    return MobileNetV2(
        num_classes=num_classes,
        width_multiplier=width_multiplier,
        dropout=dropout,
        norm=resolve_layer(norm, "norm"),
        activation=resolve_layer(activation, "activation"),
    )
