"""CSPDarknet53: half of the features pass through the residual blocks, half around them.

N   samples          H   height          K   classes
C   channels         W   width

Source:
    Wang, Liao, Wu, Chen, Hsieh, Yeh: CSPNet: A New Backbone that can Enhance Learning Capability
    of CNN, CVPR Workshops 2020; Bochkovskiy, Wang, Liao: YOLOv4, 2020, section 3.4, whose
    ``csdarknet53-omega.cfg`` states every layer. The residual blocks are Darknet-53's: Redmon,
    Farhadi: YOLOv3, 2018, Table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_256
from dlzoo.zoo.layers.conv import convolution
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.registry import Paper, register_model

CSPNET_PAPER = Paper(
    title="CSPNet: A New Backbone that can Enhance Learning Capability of CNN",
    authors="Chien-Yao Wang, Hong-Yuan Mark Liao, I-Hau Yeh, Yueh-Hua Wu, Ping-Yang Chen, "
    "Jun-Wei Hsieh",
    year=2019,
    url="https://arxiv.org/abs/1911.11929",
)

STEM_WIDTH = 32


class StageNumbers(NamedTuple):
    """One row of the architecture: a stage that halves H and W, then splits and merges."""

    #: Number of channels after the resolution is halved, and of the output.
    width: int
    #: Channels of each of the two paths.
    path_width: int
    #: Channels between the two convolutions of a residual block.
    hidden_width: int
    num_blocks: int


#: Each stage has as many blocks as in Darknet-53. The paths of the first stage are as wide as the
#: stage, those of the others half as wide.
STAGES = (
    StageNumbers(64, 64, 32, 1),
    StageNumbers(128, 64, 64, 2),
    StageNumbers(256, 128, 128, 8),
    StageNumbers(512, 256, 256, 8),
    StageNumbers(1024, 512, 512, 4),
)


class ConvNormActivation(nn.Module):
    """Convolution without bias, norm, activation: Darknet's ``[convolutional]`` section.

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
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.conv = convolution(
            in_channels, out_channels, kernel_size, stride=stride, padding="same", bias=False
        )
        self.norm = norm(out_channels)
        self.activation = activation()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW: Tensor = self.activation(self.norm(self.conv(x_NCHW)))
        return y_NCHW


class DarknetResidual(nn.Module):
    """1x1 to the hidden width, 3x3 back, added to the input.

    Source:
        YOLOv3, Table 1.

    Shape:
        [N, C, H, W], kept.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormActivation(channels, hidden, 1, norm=norm, activation=activation)
        self.conv2 = ConvNormActivation(hidden, channels, 3, norm=norm, activation=activation)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW: Tensor = x_NCHW + self.conv2(self.conv1(x_NCHW))
        return y_NCHW


class CrossStagePartial(nn.Module):
    """Halves H and W, sends the features down two paths, and merges their outputs.

    The direct path is one 1x1 convolution; the deep one has residual blocks between
    two. The merge concatenates, deep path first, and applies a 1x1 convolution.

    Source:
        CSPNet, section 3.1 and figure 2 (b).

    Shape:
        [N, in_channels, H, W] to [N, width, ceil(H/2), ceil(W/2)].
    """

    def __init__(
        self,
        in_channels: int,
        numbers: StageNumbers,
        *,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()

        def conv(channels: int, out_channels: int, size: int, stride: int) -> nn.Module:
            return ConvNormActivation(
                channels, out_channels, size, stride=stride, norm=norm, activation=activation
            )

        width, path_width = numbers.width, numbers.path_width
        self.downsample = conv(in_channels, width, 3, 2)
        self.direct = conv(width, path_width, 1, 1)
        self.deep_in = conv(width, path_width, 1, 1)
        self.blocks = nn.Sequential(
            *(
                DarknetResidual(
                    path_width, numbers.hidden_width, norm=norm, activation=activation
                )
                for _ in range(numbers.num_blocks)
            )
        )
        self.deep_out = conv(path_width, path_width, 1, 1)
        self.merge = conv(2 * path_width, width, 1, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.downsample(x_NCHW)
        deep_NCHW = self.deep_out(self.blocks(self.deep_in(x_NCHW)))
        y_NCHW: Tensor = self.merge(torch.cat([deep_NCHW, self.direct(x_NCHW)], dim=1))
        return y_NCHW


class CSPDarknet(nn.Module):
    """A stem of one convolution, cross-stage partial stages, global pooling, one linear layer.

    Convolutions start from He's normal initialization over the fan out, the classifier from
    N(0, 0.01).

    Source:
        YOLOv4, section 3.4 and Table 1: 27.6 million parameters, and 26.0 billion multiply-adds
        at 512 x 512 pixels.

    Shape:
        [N, 3, H, W] to logits [N, K], any H and W.

    ONNX:
        Conv, BatchNormalization, Mish (opset 18 on; runtimes spell it Softplus, Tanh, Mul), Add,
        Concat, ReduceMean, Gemm.
    """

    def __init__(
        self,
        stages: tuple[StageNumbers, ...],
        *,
        num_classes: int,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.stem = ConvNormActivation(3, STEM_WIDTH, 3, norm=norm, activation=activation)
        self.stages = nn.Sequential()
        channels = STEM_WIDTH
        for numbers in stages:
            self.stages.append(
                CrossStagePartial(channels, numbers, norm=norm, activation=activation)
            )
            channels = numbers.width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.classifier = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.stages(self.stem(x_NCHW))
        logits_NK: Tensor = self.classifier(self.flatten(self.avgpool(x_NCHW)))
        return logits_NK


@register_model(
    family="CSPDarknet",
    summary="YOLOv4's backbone: cross-stage partial residuals with Mish",
    paper=CSPNET_PAPER,
    input_shape=(3, 256, 256),
    num_classes=1000,
    num_parameters=27_642_184,
    preprocessing=IMAGENET_256,
    labels="imagenet1k",
    min_image_size=(1, 1),
)
def cspdarknet53(
    *,
    num_classes: int = 1000,
    norm: LayerChoice = "batch_norm",
    activation: LayerChoice = "mish",
) -> nn.Module:
    """CSPDarknet53 with a classification head.

    Args:
        num_classes: outputs of the last layer.
        norm: name of a norm, or its builder, called with the number of channels.
        activation: name of an activation, or its builder; YOLOv4's is Mish.
    """
    return CSPDarknet(
        STAGES,
        num_classes=num_classes,
        norm=resolve_layer(norm, "norm"),
        activation=resolve_layer(activation, "activation"),
    )
