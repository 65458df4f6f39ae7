"""GoogLeNet (Inception v1), as published in 2014 and as in torchvision's published weights.

N   samples          H, W   height, width
C   channels         K      classes
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_224
from dlzoo.zoo.layers.conv import ConvolutionUnit
from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.layers.inception import AuxiliaryHead, Inception, InputRange
from dlzoo.zoo.layers.layer_registry import LayerChoice
from dlzoo.zoo.layers.norm import local_response_norm
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

PAPER = Paper(
    title="Going Deeper with Convolutions",
    authors="Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich",
    year=2014,
    url="https://arxiv.org/abs/1409.4842",
)

#: Maps of each inception module: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
#: None is max pooling. Source: table 1.
INCEPTIONS: dict[str, tuple[int, int, int, int, int, int] | None] = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": None,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": None,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}

#: Each auxiliary head, and the module whose output it reads. Source: section 5.
AUXILIARY_HEADS = {"aux1": "inception4a", "aux2": "inception4d"}


class GoogLeNet(nn.Module):
    """Table 1 of the paper; differences between the two versions are arguments.

    Source:
        Szegedy et al. 2014, table 1 and section 5.

    Shape:
        [N, 3, H, W] to [N, K]; in training with auxiliary heads a
        :class:`~dlzoo.zoo.layers.head.LogitsWithAuxiliary`.

    ONNX:
        Conv, Relu, MaxPool, Concat, ReduceMean, Gemm; never the auxiliary heads.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        large_kernel: int,
        last_pool_kernel: int,
        response_norm: bool,
        norm: LayerChoice | None,
        activation: LayerChoice,
        dropout: float,
        transform_input: bool,
        aux_logits: bool,
        aux_dropout: float,
    ) -> None:
        super().__init__()

        def unit(
            in_channels: int, out_channels: int, size: int, stride: int
        ) -> ConvolutionUnit:
            return ConvolutionUnit(
                in_channels,
                out_channels,
                size,
                stride=stride,
                norm=norm,
                activation=activation,
            )

        def pool(kernel_size: int) -> nn.MaxPool2d:
            return nn.MaxPool2d(kernel_size, stride=2, ceil_mode=True)

        # Caffe's bvlc_googlenet, in which the 2014 network was published: LRN over
        # 5 channels with k = 1 and alpha = 1e-4 of the mean, so 2e-5 of the sum.
        def lrn() -> nn.Module:
            return local_response_norm(alpha=2e-5, k=1.0) if response_norm else nn.Identity()

        self.transform = InputRange() if transform_input else nn.Identity()
        self.conv1 = unit(3, 64, 7, 2)
        self.maxpool1 = pool(3)
        self.norm1 = lrn()
        self.conv2 = unit(64, 64, 1, 1)
        self.conv3 = unit(64, 192, 3, 1)
        self.norm2 = lrn()
        self.maxpool2 = pool(3)
        in_channels = 192
        channels_after: dict[str, int] = {}
        for name, maps in INCEPTIONS.items():
            if maps is None:
                self.add_module(name, pool(last_pool_kernel if name == "maxpool4" else 3))
                continue
            block = Inception(
                in_channels, maps, large_kernel=large_kernel, norm=norm, activation=activation
            )
            self.add_module(name, block)
            in_channels = channels_after[name] = block.out_channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)
        for name, after in AUXILIARY_HEADS.items():
            if not aux_logits:
                self.add_module(name, None)
                continue
            # 5 x 5 at stride 3 gives the paper's 4 x 4 from 14 x 14; torchvision accepts any size.
            head_pool = nn.AvgPool2d(5, stride=3) if norm is None else nn.AdaptiveAvgPool2d(4)
            head = AuxiliaryHead(
                channels_after[after],
                num_classes,
                pool=head_pool,
                norm=norm,
                activation=activation,
                dropout=aux_dropout,
            )
            self.add_module(name, head)

    def auxiliary_heads(self) -> list[AuxiliaryHead]:
        """The auxiliary heads in order from the input; empty if there are none."""
        return [head for head in self.children() if isinstance(head, AuxiliaryHead)]

    def drop_auxiliary_heads(self) -> None:
        """Remove the auxiliary heads, which inference does not need."""
        for name in AUXILIARY_HEADS:
            self.add_module(name, None)

    def forward(self, x_NCHW: Tensor) -> Tensor | LogitsWithAuxiliary:
        """Compute the logits; in training also those of the auxiliary heads, if there are any."""
        x_NCHW = self.norm1(self.maxpool1(self.conv1(self.transform(x_NCHW))))
        x_NCHW = self.maxpool2(self.norm2(self.conv3(self.conv2(x_NCHW))))
        auxiliary: list[Tensor] = []
        head_after = {after: getattr(self, name) for name, after in AUXILIARY_HEADS.items()}
        for name in INCEPTIONS:
            x_NCHW = getattr(self, name)(x_NCHW)
            head = head_after.get(name)
            if self.training and head is not None:
                auxiliary.append(head(x_NCHW))
        x_NC = torch.flatten(self.avgpool(x_NCHW), 1)
        logits_NK: Tensor = self.fc(self.dropout(x_NC))
        return LogitsWithAuxiliary(logits_NK, tuple(auxiliary)) if auxiliary else logits_NK


@register_model(
    family="Inception",
    summary="As in the paper: 5 x 5 convolutions, local response normalization, no batch "
    "normalization; two auxiliary heads for training with aux_logits=True.",
    paper=PAPER,
    input_shape=(3, 224, 224),
    num_classes=1000,
    num_parameters=6_998_552,
    preprocessing=IMAGENET_224,
    labels="imagenet1k",
    min_image_size=(31, 31),
)
def googlenet_2014(
    *,
    num_classes: int = 1000,
    activation: LayerChoice = "relu",
    dropout: float = 0.4,
    aux_logits: bool = False,
    aux_dropout: float = 0.7,
) -> nn.Module:
    """GoogLeNet as in the paper; weights start as in Caffe's bvlc_googlenet (Xavier, 0.2)."""
    network = GoogLeNet(
        num_classes=num_classes,
        large_kernel=5,
        last_pool_kernel=3,
        response_norm=True,
        norm=None,
        activation=activation,
        dropout=dropout,
        transform_input=False,
        aux_logits=aux_logits,
        aux_dropout=aux_dropout,
    )
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.2)
    for logits in (network.fc, *(head.fc2 for head in network.auxiliary_heads())):
        nn.init.zeros_(logits.bias)
    return network


@register_model(
    family="Inception",
    summary="With batch normalization, and 3 x 3 in place of the paper's 5 x 5, as in torchvision "
    "and its weights.",
    paper=PAPER,
    input_shape=(3, 224, 224),
    num_classes=1000,
    num_parameters=6_624_904,
    preprocessing=IMAGENET_224,
    labels="imagenet1k",
    weights=(
        PublishedWeights.from_torchvision(
            "googlenet-1378be20.pth",
            top1_percent=69.778,
            # The file contains auxiliary heads: they are loaded, then dropped.
            builder_arguments={"aux_logits": True, "transform_input": True},
        ),
    ),
    min_image_size=(15, 15),
)
def googlenet(
    *,
    num_classes: int = 1000,
    norm: LayerChoice = "batch_norm",
    activation: LayerChoice = "relu",
    dropout: float = 0.2,
    transform_input: bool = False,
    aux_logits: bool = False,
    aux_dropout: float = 0.7,
) -> nn.Module:
    """GoogLeNet with torchvision's state-dict keys; weights start from N(0, 0.01)."""
    network = GoogLeNet(
        num_classes=num_classes,
        large_kernel=3,
        last_pool_kernel=2,
        response_norm=False,
        norm=norm,
        activation=activation,
        dropout=dropout,
        transform_input=transform_input,
        aux_logits=aux_logits,
        aux_dropout=aux_dropout,
    )
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-2, b=2)
    return network
