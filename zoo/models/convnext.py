"""ConvNeXt: a convolutional network with a transformer's proportions.

N   samples          H   height          K   classes
C   channels         W   width

Source:
    Liu, Mao, Wu, Feichtenhofer, Darrell, Xie: A ConvNet for the 2020s, CVPR 2022, section 2,
    Table 9 and appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_224_RESIZE_236
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.layers.norm import LayerNormChannelsFirst
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

CONVNEXT_PAPER = Paper(
    title="A ConvNet for the 2020s",
    authors="Zhuang Liu, Hanzi Mao, Chao-Yuan Wu, Christoph Feichtenhofer, Trevor Darrell, "
    "Saining Xie",
    year=2022,
    url="https://arxiv.org/abs/2201.03545",
)


class StageNumbers(NamedTuple):
    """Channels of a stage and number of its blocks."""

    width: int
    num_blocks: int


#: Section 3, "ConvNeXt-T".
TINY_STAGES = (
    StageNumbers(96, 3),
    StageNumbers(192, 3),
    StageNumbers(384, 9),
    StageNumbers(768, 3),
)
PATCH_SIZE = 4
#: Section 2.4: the hidden width of a block is four times its input's, as in a transformer.
EXPANSION = 4
#: Not in the paper, but in its published code.
LAYER_NORM_EPS = 1e-6


class Permute(nn.Module):
    """Reorders axes.

    ONNX:
        Transpose.
    """

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.axes)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.axes))


class StochasticDepth(nn.Module):
    """In training, zeroes a residual branch for a random share of the samples.

    y_n = x_n b_n / (1 - p), b_n = 0 with probability p, else 1; in evaluation y = x.

    Source:
        Huang, Sun, Liu, Sedra, Weinberger: Deep Networks with Stochastic Depth, 2016, section 3,
        scaled in training instead of evaluation.

    Shape:
        Any with N first, kept.

    ONNX:
        Nothing.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x_NCHW
        survival = 1 - self.probability
        kept_N111 = x_NCHW.new_empty(x_NCHW.shape[0], 1, 1, 1).bernoulli_(survival)
        return x_NCHW * kept_N111 / survival

    def extra_repr(self) -> str:
        return f"probability={self.probability:.3g}"


class ConvNeXtBlock(nn.Module):
    """7x7 depthwise, LayerNorm, 1x1 to four times the channels, GELU, 1x1 back.

    y = x + gamma_c F(x); gamma (layer scale) starts at 1e-6. The 1x1 convolutions are linear
    layers on channels-last data.

    Source:
        Figure 4 and section 2.6; layer scale: Touvron et al., Going deeper with Image
        Transformers, 2021, equation 4.

    Shape:
        [N, C, H, W], kept.

    ONNX:
        Conv (depthwise), Transpose, LayerNormalization, MatMul, Add, Gelu (opset 20 on),
        MatMul, Add, Transpose, Mul, Add.
    """

    def __init__(
        self,
        channels: int,
        *,
        layer_scale: float,
        stochastic_depth: float,
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), layer_scale))
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            Permute(0, 2, 3, 1),
            nn.LayerNorm(channels, eps=LAYER_NORM_EPS),
            nn.Linear(channels, EXPANSION * channels),
            activation(),
            nn.Linear(EXPANSION * channels, channels),
            Permute(0, 3, 1, 2),
        )
        self.stochastic_depth = StochasticDepth(stochastic_depth)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        residual_NCHW = self.layer_scale * self.block(x_NCHW)
        y_NCHW: Tensor = x_NCHW + self.stochastic_depth(residual_NCHW)
        return y_NCHW


class ConvNeXt(nn.Module):
    """Patches of 4 x 4 pixels, then stages with a LayerNorm and a 2x2 convolution between them.

    Weights start from a normal distribution of deviation 0.02, cut off at -2 and 2, biases from
    zero.

    Source:
        Table 9; initialization: Table 5.

    Shape:
        [N, 3, H, W] to logits [N, K]; H and W at least 32, the stride of the last stage.

    ONNX:
        As the blocks, and ReduceMean, LayerNormalization, Gemm.
    """

    def __init__(
        self,
        stages: tuple[StageNumbers, ...],
        *,
        num_classes: int,
        layer_scale: float,
        stochastic_depth: float,
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        channels = stages[0].width
        self.features = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(3, channels, PATCH_SIZE, stride=PATCH_SIZE),
                LayerNormChannelsFirst(channels, eps=LAYER_NORM_EPS),
            )
        )
        # A block's probability of being dropped rises linearly from 0 to stochastic_depth.
        probabilities = iter(
            torch.linspace(
                0, stochastic_depth, sum(stage.num_blocks for stage in stages), device="cpu"
            ).tolist()
        )
        for stage in stages:
            if stage.width != channels:
                self.features.append(
                    nn.Sequential(
                        LayerNormChannelsFirst(channels, eps=LAYER_NORM_EPS),
                        nn.Conv2d(channels, stage.width, 2, stride=2),
                    )
                )
                channels = stage.width
            self.features.append(
                nn.Sequential(
                    *(
                        ConvNeXtBlock(
                            channels,
                            layer_scale=layer_scale,
                            stochastic_depth=next(probabilities),
                            activation=activation,
                        )
                        for _ in range(stage.num_blocks)
                    )
                )
            )
        self.classifier = nn.Sequential(
            LayerNormChannelsFirst(channels, eps=LAYER_NORM_EPS),
            nn.Flatten(1),
            nn.Linear(channels, num_classes),
        )

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        # AdaptiveAvgPool2d(1) is the same mean, but lays out the result of a channels-last block with
        # as_strided, which ONNX can only express as Range and Gather.
        x_NC11 = self.features(x_NCHW).mean((-2, -1), keepdim=True)
        logits_NK: Tensor = self.classifier(x_NC11)
        return logits_NK


@register_model(
    family="ConvNeXt",
    summary="convolutions in a transformer's proportions, LayerNorm and GELU",
    paper=CONVNEXT_PAPER,
    input_shape=(3, 224, 224),
    num_classes=1000,
    num_parameters=28_589_128,
    preprocessing=IMAGENET_224_RESIZE_236,
    labels="imagenet1k",
    weights=(
        PublishedWeights.from_torchvision("convnext_tiny-983f1562.pth", top1_percent=82.520),
    ),
    min_image_size=(32, 32),
)
def convnext_tiny(
    *,
    num_classes: int = 1000,
    layer_scale: float = 1e-6,
    stochastic_depth: float = 0.1,
    activation: LayerChoice = "gelu",
) -> nn.Module:
    """ConvNeXt-T.

    Args:
        num_classes: outputs of the last layer.
        layer_scale: initial factor of the residual branches.
        stochastic_depth: probability of dropping the last block, in training; it rises linearly
            from 0 at the first block (Table 5).
        activation: name of an activation, or its builder.
    """
    return ConvNeXt(
        TINY_STAGES,
        num_classes=num_classes,
        layer_scale=layer_scale,
        stochastic_depth=stochastic_depth,
        activation=resolve_layer(activation, "activation"),
    )
