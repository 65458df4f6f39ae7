"""AlexNet, as published in 2012 and as in torchvision's published weights (2014).

N   samples          H, W   height, width
C   channels         K      classes
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_224
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.layers.norm import local_response_norm
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

PAPER_2012 = Paper(
    title="ImageNet Classification with Deep Convolutional Neural Networks",
    authors="Krizhevsky, Sutskever, Hinton",
    year=2012,
    url="https://papers.nips.cc/paper/2012/hash/c399862d3b9d6b76c8436e924a68c45b-Abstract.html",
)
PAPER_2014 = Paper(
    title="One weird trick for parallelizing convolutional neural networks",
    authors="Krizhevsky",
    year=2014,
    url="https://arxiv.org/abs/1404.5997",
)

#: Maps, kernel, stride, padding, groups, initial bias, response normalization, pooling.
#: Source: 2012, sections 3.5 and 5.
CONVOLUTIONS_2012 = (
    (96, 11, 4, 0, 1, 0.0, True, True),
    (256, 5, 1, 2, 2, 1.0, True, True),
    (384, 3, 1, 1, 1, 0.0, False, False),
    (384, 3, 1, 1, 2, 1.0, False, False),
    (256, 3, 1, 1, 2, 1.0, False, True),
)

#: Maps, kernel, stride, padding, pooling. Source: 2014, section 5; torchvision.
CONVOLUTIONS_2014 = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)


class AlexNet2012(nn.Module):
    """Five convolutions in one or two groups, then three fully connected layers.

    The paper says 224 x 224 pixels, but (224 - 11)/4 + 1 = 54.25 is not the 55 x 55 that
    the 27 x 27 of its next layer requires ((55 - 3)/2 + 1 = 27). (227 - 11)/4 + 1 = 55 is: so
    the input is 227 x 227 without padding, as in Caffe's and MATLAB's versions.

    Source:
        Krizhevsky, Sutskever & Hinton 2012, section 3. Two groups stand for the two GPUs: the
        maps of one half are connected only to maps of the same half, except in the third layer.

    Shape:
        [N, C, 227, 227] to [N, K].

    ONNX:
        Conv (group 2), Relu, MaxPool, Gemm, and each response normalization as 9 nodes.
    """

    def __init__(
        self, num_classes: int, num_channels: int, activation: LayerChoice, dropout: float
    ) -> None:
        super().__init__()
        act = resolve_layer(activation, "activation")
        layers: list[nn.Module] = []
        in_channels = num_channels
        for (
            maps,
            kernel,
            stride,
            padding,
            groups,
            bias,
            normalized,
            pooled,
        ) in CONVOLUTIONS_2012:
            conv = nn.Conv2d(
                in_channels, maps, kernel, stride=stride, padding=padding, groups=groups
            )
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.constant_(conv.bias, bias)
            layers += [conv, act()]
            if normalized:
                layers.append(local_response_norm())
            if pooled:
                layers.append(nn.MaxPool2d(3, stride=2))
            in_channels = maps
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096),
            act(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            act(),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        # Section 5: weights from N(0, 0.01); biases 1 in the hidden layers, 0 in the last.
        linear = [layer for layer in self.classifier if isinstance(layer, nn.Linear)]
        for layer in linear:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, 0.0 if layer is linear[-1] else 1.0)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Logits."""
        logits_NK: Tensor = self.classifier(torch.flatten(self.features(x_NCHW), 1))
        return logits_NK


class AlexNet(nn.Module):
    """The network of 2014, with torchvision's module names.

    Source:
        Krizhevsky 2014, section 5: one column, no response normalization.

    Shape:
        [N, C, H, W] to [N, K], 224 x 224 by default; adaptive pooling allows others.

    ONNX:
        Conv, Relu, MaxPool, Gemm; at 224 x 224 the adaptive pooling is an AveragePool of 1 x 1.
    """

    def __init__(
        self,
        num_classes: int,
        num_channels: int,
        activation: LayerChoice,
        dropout: float,
        hidden_width: int,
        pooled_size: int,
    ) -> None:
        super().__init__()
        act = resolve_layer(activation, "activation")
        layers: list[nn.Module] = []
        in_channels = num_channels
        for maps, kernel, stride, padding, pooled in CONVOLUTIONS_2014:
            layers += [nn.Conv2d(in_channels, maps, kernel, stride, padding), act()]
            if pooled:
                layers.append(nn.MaxPool2d(3, stride=2))
            in_channels = maps
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((pooled_size, pooled_size))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(in_channels * pooled_size**2, hidden_width),
            act(),
            nn.Dropout(dropout),
            nn.Linear(hidden_width, hidden_width),
            act(),
            nn.Linear(hidden_width, num_classes),
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Logits."""
        x_NCHW = self.avgpool(self.features(x_NCHW))
        logits_NK: Tensor = self.classifier(torch.flatten(x_NCHW, 1))
        return logits_NK


@register_model(
    family="AlexNet",
    summary="As in the paper: convolutions in two groups, overlapping pooling, local response "
    "normalization, dropout; 227 x 227 pixels, as its own arithmetic requires.",
    paper=PAPER_2012,
    input_shape=(3, 227, 227),
    num_classes=1000,
    num_parameters=60_965_224,
    preprocessing=replace(IMAGENET_224, crop_size=(227, 227)),
    labels="imagenet1k",
    min_image_size=(227, 227),
)
def alexnet_2012(
    *,
    num_classes: int = 1000,
    num_channels: int = 3,
    activation: LayerChoice = "relu",
    dropout: float = 0.5,
) -> nn.Module:
    """AlexNet as in the paper of 2012."""
    return AlexNet2012(num_classes, num_channels, activation, dropout)


@register_model(
    family="AlexNet",
    summary="One column without response normalization, as in torchvision.",
    paper=PAPER_2014,
    input_shape=(3, 224, 224),
    num_classes=1000,
    num_parameters=61_100_840,
    preprocessing=IMAGENET_224,
    labels="imagenet1k",
    weights=(
        PublishedWeights.from_torchvision("alexnet-owt-7be5be79.pth", top1_percent=56.522),
    ),
    min_image_size=(63, 63),
)
def alexnet(
    *,
    num_classes: int = 1000,
    num_channels: int = 3,
    activation: LayerChoice = "relu",
    dropout: float = 0.5,
    hidden_width: int = 4096,
    pooled_size: int = 6,
) -> nn.Module:
    """AlexNet as in "One weird trick", with torchvision's state-dict keys.

    The last two arguments adapt it to small images: 64 x 64 pixels leave one position.

    Args:
        num_classes: outputs of the last layer.
        num_channels: channels of the images.
        activation: name of an activation, or its builder.
        dropout: probability of dropout before each fully connected layer except the last.
        hidden_width: width of the fully connected layers except the last.
        pooled_size: height and width of the maps before the fully connected layers.
    """
    return AlexNet(num_classes, num_channels, activation, dropout, hidden_width, pooled_size)
