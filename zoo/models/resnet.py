"""ResNet: layers learn a residual, which is added to their input.

N   samples          H   height          K   classes
C   channels         W   width

Source:
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, Table 1 and
    figure 5. In bottlenecks the 3x3 convolution has the stride ("v1.5", as torchvision's
    weights expect); in the paper the first 1x1 convolution has it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_224, IMAGENET_224_RESIZE_232
from dlzoo.zoo.layers.conv import convolution
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.layers.norm import group_norm
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

#: Table 1: blocks in the stages conv2_x to conv5_x.
NUM_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
#: Table 1: width of the 3x3 convolutions in those stages.
STAGE_WIDTHS = (64, 128, 256, 512)
STEM_WIDTH = 64

RESNET_PAPER = Paper(
    title="Deep Residual Learning for Image Recognition",
    authors="Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    year=2015,
    url="https://arxiv.org/abs/1512.03385",
)
GROUP_NORM_PAPER = Paper(
    title="Group Normalization",
    authors="Yuxin Wu, Kaiming He",
    year=2018,
    url="https://arxiv.org/abs/1803.08494",
)


def conv_without_bias(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> nn.Conv2d:
    """A convolution without bias, because a norm with one follows."""
    return convolution(
        in_channels, out_channels, kernel_size, stride=stride, padding="same", bias=False
    )


#: Builder of a block's shortcut from its channels in and out, its stride and its norm; it returns
#: None if the shortcut is the input itself.
Shortcut = Callable[[int, int, int, Callable[..., nn.Module]], nn.Module | None]


def projection_shortcut(
    in_channels: int, out_channels: int, stride: int, norm: Callable[..., nn.Module]
) -> nn.Module | None:
    """The shortcut between different shapes: option B of section 4.1, equation 2."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        conv_without_bias(in_channels, out_channels, 1, stride), norm(out_channels)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    y = activation(F(x) + shortcut(x))

    Source:
        Figure 5, left; equations 1 and 2.

    Shape:
        [N, in_channels, H, W] to [N, width, ceil(H/stride), ceil(W/stride)].
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
        shortcut: Shortcut = projection_shortcut,
    ) -> None:
        super().__init__()
        self.conv1 = conv_without_bias(in_channels, width, 3, stride)
        self.bn1 = norm(width)
        self.activation1 = activation()
        self.conv2 = conv_without_bias(width, width, 3)
        self.bn2 = norm(width)
        self.activation2 = activation()
        # The name is torchvision's; at stride 1 it only changes the number of channels.
        self.downsample = shortcut(in_channels, width, stride, norm)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        residual_NCHW = self.activation1(self.bn1(self.conv1(x_NCHW)))
        residual_NCHW = self.bn2(self.conv2(residual_NCHW))
        shortcut_NCHW = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        y_NCHW: Tensor = self.activation2(residual_NCHW + shortcut_NCHW)
        return y_NCHW


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3 there, 1x1 back to four times as many, and a shortcut.

    y = activation(F(x) + shortcut(x))

    Source:
        Figure 5, right; the stride is on the 3x3 convolution (v1.5).

    Shape:
        [N, in_channels, H, W] to [N, 4 width, ceil(H/stride), ceil(W/stride)].
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = conv_without_bias(in_channels, width, 1)
        self.bn1 = norm(width)
        self.activation1 = activation()
        self.conv2 = conv_without_bias(width, width, 3, stride)
        self.bn2 = norm(width)
        self.activation2 = activation()
        self.conv3 = conv_without_bias(width, width * self.expansion, 1)
        self.bn3 = norm(width * self.expansion)
        self.activation3 = activation()
        self.downsample = projection_shortcut(
            in_channels, width * self.expansion, stride, norm
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        residual_NCHW = self.activation1(self.bn1(self.conv1(x_NCHW)))
        residual_NCHW = self.activation2(self.bn2(self.conv2(residual_NCHW)))
        residual_NCHW = self.bn3(self.conv3(residual_NCHW))
        shortcut_NCHW = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        y_NCHW: Tensor = self.activation3(residual_NCHW + shortcut_NCHW)
        return y_NCHW


class ResNet(nn.Module):
    """A residual network for images.

    Convolutions start from He's normal initialization over the fan out, norms from scale 1 and
    shift 0.

    Source:
        Table 1; initialization: He et al., Delving Deep into Rectifiers, 2015, equation 14.

    Shape:
        [N, 3, H, W] to logits [N, K], any H and W.

    ONNX:
        Conv, BatchNormalization (folded into Conv by most runtimes), Relu, MaxPool, Add,
        ReduceMean or GlobalAveragePool, Gemm.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        num_blocks: tuple[int, int, int, int],
        *,
        num_classes: int,
        norm: Callable[..., nn.Module],
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = conv_without_bias(3, STEM_WIDTH, 7, stride=2)
        self.bn1 = norm(STEM_WIDTH)
        self.activation1 = activation()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

        channels = STEM_WIDTH
        stages: list[nn.Module] = []
        for width, num in zip(STAGE_WIDTHS, num_blocks, strict=True):
            # Stages conv3_x to conv5_x halve H and W in their first block; for conv2_x the pooling did.
            strides = [2 if stages else 1] + [1] * (num - 1)
            stage = nn.Sequential()
            for stride in strides:
                stage.append(block(channels, width, stride, norm, activation))
                channels = width * block.expansion
            stages.append(stage)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(channels, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.maxpool(self.activation1(self.bn1(self.conv1(x_NCHW))))
        x_NCHW = self.layer4(self.layer3(self.layer2(self.layer1(x_NCHW))))
        logits_NK: Tensor = self.fc(self.flatten(self.avgpool(x_NCHW)))
        return logits_NK


def _resnet(
    depth: int, *, num_classes: int, norm: LayerChoice, activation: LayerChoice
) -> ResNet:
    return ResNet(
        BasicBlock if depth < 50 else Bottleneck,
        NUM_BLOCKS[depth],
        num_classes=num_classes,
        norm=resolve_layer(norm, "norm"),
        activation=resolve_layer(activation, "activation"),
    )


_register_resnet = partial(
    register_model,
    family="ResNet",
    input_shape=(3, 224, 224),
    num_classes=1000,
    preprocessing=IMAGENET_224,
    labels="imagenet1k",
    min_image_size=(1, 1),
)


def _depth(
    depth: int,
    summary: str,
    num_parameters: int,
    weights: tuple[str, float],
    newer_weights: tuple[str, float] | None = None,
) -> Callable[..., nn.Module]:
    """Enter the builder of one column of table 1, with its (hash, top-1 percent) as published."""

    def build(
        *,
        num_classes: int = 1000,
        norm: LayerChoice = "batch_norm",
        activation: LayerChoice = "relu",
    ) -> nn.Module:
        return _resnet(depth, num_classes=num_classes, norm=norm, activation=activation)

    name = f"resnet{depth}"
    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""ResNet-{depth}: {depth} layers with weights along the longest path.

    Args:
        num_classes: outputs of the last layer.
        norm: name of a norm, or its builder, called with the number of channels.
        activation: name of an activation, or its builder.
    """
    published = [
        PublishedWeights.from_torchvision(f"{name}-{weights[0]}.pth", top1_percent=weights[1])
    ]
    if newer_weights is not None:
        published.append(
            PublishedWeights.from_torchvision(
                f"{name}-{newer_weights[0]}.pth",
                name="imagenet_v2",
                top1_percent=newer_weights[1],
                preprocessing=IMAGENET_224_RESIZE_232,
            )
        )
    return _register_resnet(
        summary=summary,
        paper=RESNET_PAPER,
        num_parameters=num_parameters,
        weights=tuple(published),
    )(build)


resnet18 = _depth(18, "smallest ResNet: basic blocks", 11_689_512, ("f37072fd", 69.758))
resnet34 = _depth(34, "ResNet of basic blocks", 21_797_672, ("b627a593", 73.314))
resnet50 = _depth(
    50, "ResNet of bottlenecks", 25_557_032, ("0676ba61", 76.13), ("11ad3fa6", 80.858)
)
resnet101 = _depth(
    101, "deep ResNet of bottlenecks", 44_549_160, ("63fe2227", 77.374), ("cd907fc2", 81.886)
)
resnet152 = _depth(
    152, "deepest ResNet of the paper", 60_192_808, ("394f9c45", 78.312), ("f82ba261", 82.284)
)


@_register_resnet(
    summary="ResNet-50 that normalizes groups of channels, whatever the batch",
    paper=GROUP_NORM_PAPER,
    num_parameters=25_557_032,
)
def resnet50_gn(
    *,
    num_classes: int = 1000,
    num_groups: int = 32,
    activation: LayerChoice = "relu",
) -> nn.Module:
    """ResNet-50 with GroupNorm in place of BatchNorm.

    Args:
        num_classes: outputs of the last layer.
        num_groups: groups that each layer's channels are normalized in; the paper's best is 32.
        activation: name of an activation, or its builder.
    """
    norm = partial(group_norm, num_groups=num_groups)
    return _resnet(50, num_classes=num_classes, norm=norm, activation=activation)
