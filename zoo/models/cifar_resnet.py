"""ResNet for images of 32 x 32 pixels: three stages, shortcuts without parameters.

N   samples          H   height          K   classes
C   channels         W   width

Source:
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2 and
    table 6.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from dlzoo.zoo.data.preprocessing import CIFAR_32
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.models.resnet import RESNET_PAPER, BasicBlock, conv_without_bias
from dlzoo.zoo.registry import register_model

#: Section 4.2: the stages' widths; each stage but the first halves H and W.
STAGE_WIDTHS = (16, 32, 64)


class ZeroPaddedShortcut(nn.Module):
    """Every ``stride``-th row and column, and zeros for channels that the input does not have.

    y[c, i, j] = x[c, s i, s j] for c < in_channels, else 0

    Source:
        Section 4.1, option A ("zero-padding shortcuts"). The zeros come last, as in the authors'
        ``fb.resnet.torch``.

    Shape:
        [N, in_channels, H, W] to [N, out_channels, ceil(H/stride), ceil(W/stride)].

    ONNX:
        Slice, Pad.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.num_zeros = out_channels - in_channels
        self.stride = stride

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = x_NCHW[:, :, :: self.stride, :: self.stride]
        return functional.pad(x_NCHW, (0, 0, 0, 0, 0, self.num_zeros))

    def extra_repr(self) -> str:
        return f"num_zeros={self.num_zeros}, stride={self.stride}"


def zero_padded_shortcut(
    in_channels: int, out_channels: int, stride: int, _norm: Callable[..., nn.Module]
) -> nn.Module | None:
    """The shortcut between different shapes: option A of section 4.1."""
    if stride == 1 and in_channels == out_channels:
        return None
    return ZeroPaddedShortcut(in_channels, out_channels, stride)


class CifarResNet(nn.Module):
    """A stem of one 3x3 convolution, three stages of n basic blocks, global pooling, one layer.

    6n + 2 layers with weights. Convolutions start from He's normal initialization over the fan
    out, norms from scale 1 and shift 0, as in :class:`~dlzoo.zoo.models.resnet.ResNet`.

    Source:
        Section 4.2 and its table.

    Shape:
        [N, C, H, W] to logits [N, K], any H and W.

    ONNX:
        Conv, BatchNormalization (folded into Conv by most runtimes), Relu, Slice, Pad, Add,
        ReduceMean, Gemm.
    """

    def __init__(
        self,
        num_blocks: int,
        *,
        num_classes: int,
        num_channels: int,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        channels = STAGE_WIDTHS[0]
        self.conv1 = conv_without_bias(num_channels, channels, 3)
        self.bn1 = norm(channels)
        self.activation1 = activation()
        stages: list[nn.Module] = []
        for width in STAGE_WIDTHS:
            stage = nn.Sequential()
            for block in range(num_blocks):
                stride = 2 if stages and block == 0 else 1
                stage.append(
                    BasicBlock(channels, width, stride, norm, activation, zero_padded_shortcut)
                )
                channels = width
            stages.append(stage)
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.activation1(self.bn1(self.conv1(x_NCHW)))
        x_NCHW = self.layer3(self.layer2(self.layer1(x_NCHW)))
        logits_NK: Tensor = self.fc(self.flatten(self.avgpool(x_NCHW)))
        return logits_NK


def _depth(depth: int, num_parameters: int) -> Callable[..., nn.Module]:
    """Register the builder of one row of table 6."""

    def build(
        *,
        num_classes: int = 10,
        num_channels: int = 3,
        norm: LayerChoice = "batch_norm",
        activation: LayerChoice = "relu",
    ) -> nn.Module:
        return CifarResNet(
            (depth - 2) // 6,
            num_classes=num_classes,
            num_channels=num_channels,
            norm=resolve_layer(norm, "norm"),
            activation=resolve_layer(activation, "activation"),
        )

    build.__name__ = build.__qualname__ = f"resnet{depth}"
    build.__doc__ = f"""ResNet-{depth} for 32 x 32 pixels: {depth} layers with weights.

    Args:
        num_classes: outputs of the last layer.
        num_channels: channels of the images.
        norm: name of a norm, or its builder, called with the number of channels.
        activation: name of an activation, or its builder.
    """
    return register_model(
        family="ResNet",
        summary=f"for 32 x 32 pixels: three stages of {(depth - 2) // 6} basic blocks, "
        "shortcuts without parameters",
        paper=RESNET_PAPER,
        input_shape=(3, 32, 32),
        num_classes=10,
        num_parameters=num_parameters,
        preprocessing=CIFAR_32,
        labels="cifar10",
        min_image_size=(1, 1),
    )(build)


resnet20 = _depth(20, 269_722)
resnet32 = _depth(32, 464_154)
resnet44 = _depth(44, 658_586)
resnet56 = _depth(56, 853_018)
