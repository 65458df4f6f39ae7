"""DenseNet: the input of every layer is the features of all layers before it.

N   samples          H   height          K   classes
C   channels         W   width

Source:
    Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, CVPR
    2017, section 3 and Table 1 (DenseNet-BC).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_224
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

DENSENET_PAPER = Paper(
    title="Densely Connected Convolutional Networks",
    authors="Gao Huang, Zhuang Liu, Laurens van der Maaten, Kilian Q. Weinberger",
    year=2016,
    url="https://arxiv.org/abs/1608.06993",
)

#: Table 1, DenseNet-121: layers in the four dense blocks.
NUM_LAYERS = (6, 12, 24, 16)
#: k, the channels that each layer adds.
GROWTH_RATE = 32
#: The 1x1 convolution of a layer has 4 k output channels (section 3, "Bottleneck layers").
BOTTLENECK_FACTOR = 4
#: Transitions halve the channels: theta = 0.5 (section 3, "Compression").
COMPRESSION_DIVISOR = 2
#: The first convolution has 2 k output channels (section 3, "Implementation Details").
STEM_WIDTH = 2 * GROWTH_RATE

_LEGACY_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")


def remap_legacy_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename ``denselayer1.norm.1.weight``, as published, to ``denselayer1.norm1.weight``.

    The published file is from when PyTorch allowed dots in module names. Other keys stay.
    """
    return {_LEGACY_KEY.sub(r"\1\2", key): value for key, value in state_dict.items()}


class DenseLayer(nn.Module):
    """Computes k new features: norm, activation, 1x1 convolution to 4 k, norm, activation, 3x3 to k.

    Source:
        section 3: H_l of DenseNet-B.

    Shape:
        [N, in_channels, H, W] to [N, k, H, W].
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dropout: float,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        hidden = BOTTLENECK_FACTOR * GROWTH_RATE
        self.norm1 = norm(in_channels)
        self.activation1 = activation()
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm2 = norm(hidden)
        self.activation2 = activation()
        self.conv2 = nn.Conv2d(hidden, GROWTH_RATE, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        hidden_NCHW = self.conv1(self.activation1(self.norm1(x_NCHW)))
        new_NCHW = self.conv2(self.activation2(self.norm2(hidden_NCHW)))
        y_NCHW: Tensor = self.dropout(new_NCHW)
        return y_NCHW


class DenseBlock(nn.Module):
    """Layers whose input is the block's input and all new features so far, concatenated.

    x_l = H_l([x_0, x_1, ..., x_(l-1)])

    Source:
        equation 2.

    Shape:
        [N, in_channels, H, W] to [N, in_channels + num_layers k, H, W].

    ONNX:
        one Concat per layer.
    """

    def __init__(
        self,
        in_channels: int,
        num_layers: int,
        *,
        dropout: float,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        for index in range(num_layers):
            layer = DenseLayer(
                in_channels + index * GROWTH_RATE,
                dropout=dropout,
                norm=norm,
                activation=activation,
            )
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        for layer in self.children():
            x_NCHW = torch.cat([x_NCHW, layer(x_NCHW)], dim=1)
        return x_NCHW


class Transition(nn.Sequential):
    """Norm, activation, 1x1 convolution to half the channels, 2x2 average pooling.

    Source:
        section 3, "Pooling layers" and "Compression".

    Shape:
        [N, C, H, W] to [N, C/2, floor(H/2), floor(W/2)].
    """

    def __init__(
        self,
        in_channels: int,
        *,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.norm = norm(in_channels)
        self.activation = activation()
        self.conv = nn.Conv2d(in_channels, in_channels // COMPRESSION_DIVISOR, 1, bias=False)
        self.pool = nn.AvgPool2d(2, stride=2)


class DenseNet(nn.Module):
    """Dense blocks with transitions between them.

    Convolutions start from He's normal initialization, biases from zero.

    Source:
        Table 1; initialization: section 4.2.

    Shape:
        [N, 3, H, W] to logits [N, K]; H and W at least 29, otherwise the last transition gets an
        image of a single pixel.

    ONNX:
        Conv, BatchNormalization, Relu, Concat, AveragePool, MaxPool, ReduceMean or
        GlobalAveragePool, Gemm.
    """

    def __init__(
        self,
        num_layers: tuple[int, ...],
        *,
        num_classes: int,
        dropout: float,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module(
            "conv0", nn.Conv2d(3, STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        )
        self.features.add_module("norm0", norm(STEM_WIDTH))
        self.features.add_module("activation0", activation())
        self.features.add_module("pool0", nn.MaxPool2d(3, stride=2, padding=1))
        channels = STEM_WIDTH
        for index, num in enumerate(num_layers, start=1):
            self.features.add_module(
                f"denseblock{index}",
                DenseBlock(channels, num, dropout=dropout, norm=norm, activation=activation),
            )
            channels += num * GROWTH_RATE
            if index < len(num_layers):
                self.features.add_module(
                    f"transition{index}",
                    Transition(channels, norm=norm, activation=activation),
                )
                channels //= COMPRESSION_DIVISOR
        self.features.add_module("norm5", norm(channels))
        self.features.add_module("activation5", activation())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.classifier = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.features(x_NCHW)
        logits_NK: Tensor = self.classifier(self.flatten(self.avgpool(x_NCHW)))
        return logits_NK


@register_model(
    family="DenseNet",
    summary="each layer reads all earlier features: 121 layers, few parameters",
    paper=DENSENET_PAPER,
    input_shape=(3, 224, 224),
    num_classes=1000,
    num_parameters=7_978_856,
    preprocessing=IMAGENET_224,
    labels="imagenet1k",
    weights=(
        PublishedWeights.from_torchvision("densenet121-a639ec97.pth", top1_percent=74.434),
    ),
    min_image_size=(29, 29),
    remap_keys=remap_legacy_keys,
)
def densenet121(
    *,
    num_classes: int = 1000,
    dropout: float = 0.0,
    norm: LayerChoice = "batch_norm",
    activation: LayerChoice = "relu",
) -> nn.Module:
    """DenseNet-BC with 121 layers and a growth rate of 32.

    Args:
        num_classes: outputs of the last layer.
        dropout: probability of dropping a new feature, in training.
        norm: name of a norm, or its builder, called with the number of channels.
        activation: name of an activation, or its builder.
    """
    return DenseNet(
        NUM_LAYERS,
        num_classes=num_classes,
        dropout=dropout,
        norm=resolve_layer(norm, "norm"),
        activation=resolve_layer(activation, "activation"),
    )
