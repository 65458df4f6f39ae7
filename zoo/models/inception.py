"""Inception v3: factorized convolutions in parallel branches.

N   samples          H, W   height, width
C   channels         K      classes
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_299
from dlzoo.zoo.layers.conv import ConvolutionUnit, Size
from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.layers.inception import InputRange
from dlzoo.zoo.layers.layer_registry import LayerChoice
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

PAPER = Paper(
    title="Rethinking the Inception Architecture for Computer Vision",
    authors="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna",
    year=2015,
    url="https://arxiv.org/abs/1512.00567",
)

#: Maps and kernel of a convolution. A list of them is applied in parallel to the same input.
Unit = tuple[int, Size]
Branch = tuple[Unit | list[Unit], ...]

#: Convolutions before the first module: maps, kernel, stride, padded or not; None is pooling.
#: Source: table 1, with the kernels of the published network.
STEM: dict[str, tuple[int, int, int, bool] | None] = {
    "Conv2d_1a_3x3": (32, 3, 2, False),
    "Conv2d_2a_3x3": (32, 3, 1, False),
    "Conv2d_2b_3x3": (64, 3, 1, True),
    "maxpool1": None,
    "Conv2d_3b_1x1": (80, 1, 1, False),
    "Conv2d_4a_3x3": (192, 3, 1, False),
    "maxpool2": None,
}


def _figure5(pooled: int) -> dict[str, Branch]:
    return {
        "branch1x1": ((64, 1),),
        "branch5x5": ((48, 1), (64, 5)),
        "branch3x3dbl": ((64, 1), (96, 3), (96, 3)),
        "branch_pool": ((pooled, 1),),
    }


def _figure6(maps: int) -> dict[str, Branch]:
    wide, tall = (1, 7), (7, 1)
    return {
        "branch1x1": ((192, 1),),
        "branch7x7": ((maps, 1), (maps, wide), (192, tall)),
        "branch7x7dbl": ((maps, 1), (maps, tall), (maps, wide), (maps, tall), (192, wide)),
        "branch_pool": ((192, 1),),
    }


_FIGURE_7: dict[str, Branch] = {
    "branch1x1": ((320, 1),),
    "branch3x3": ((384, 1), [(384, (1, 3)), (384, (3, 1))]),
    "branch3x3dbl": ((448, 1), (384, 3), [(384, (1, 3)), (384, (3, 1))]),
    "branch_pool": ((192, 1),),
}

#: The modules. One without ``branch_pool`` halves the image: the last convolution of each
#: branch has stride 2 and no padding, and a further branch max-pools the input.
#: Source: figures 5, 6, 7 and 10, with the maps of the published network.
MODULES: dict[str, dict[str, Branch]] = {
    "Mixed_5b": _figure5(32),
    "Mixed_5c": _figure5(64),
    "Mixed_5d": _figure5(64),
    "Mixed_6a": {"branch3x3": ((384, 3),), "branch3x3dbl": ((64, 1), (96, 3), (96, 3))},
    "Mixed_6b": _figure6(128),
    "Mixed_6c": _figure6(160),
    "Mixed_6d": _figure6(160),
    "Mixed_6e": _figure6(192),
    "Mixed_7a": {
        "branch3x3": ((192, 1), (320, 3)),
        "branch7x7x3": ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)),
    },
    "Mixed_7b": _FIGURE_7,
    "Mixed_7c": _FIGURE_7,
}

#: The module whose output the auxiliary head reads. Source: section 4, figure 8.
AUXILIARY_AFTER = "Mixed_6e"


class InceptionModule(nn.Module):
    """Branches of convolutions and one of pooling, whose maps are concatenated.

    A branch's convolutions are numbered under its name (``branch5x5_1``), two in parallel are
    distinguished by a letter (``branch3x3_2a``), and a single one has the branch's name.

    Shape:
        [N, in_channels, H, W] to [N, sum of the branches' maps, H, W], or (H - 3)//2 + 1.

    ONNX:
        Conv, Relu, AveragePool or MaxPool, Concat.
    """

    def __init__(
        self,
        in_channels: int,
        branches: dict[str, Branch],
        *,
        norm: LayerChoice,
        activation: LayerChoice,
    ) -> None:
        super().__init__()
        halves = "branch_pool" not in branches
        #: The names of the modules of each branch, step by step.
        self.steps: dict[str, list[list[str]]] = {}
        self.out_channels = in_channels if halves else 0
        for branch, units in branches.items():
            self.steps[branch] = []
            channels = in_channels
            for number, step in enumerate(units, start=1):
                name = branch if len(units) == 1 else f"{branch}_{number}"
                last = number == len(units)
                if isinstance(step, list):
                    sides = {
                        name + letter: unit for letter, unit in zip("ab", step, strict=True)
                    }
                else:
                    sides = {name: step}
                for side, (maps, kernel) in sides.items():
                    convolution = ConvolutionUnit(
                        channels,
                        maps,
                        kernel,
                        stride=2 if halves and last else 1,
                        valid=halves and last,
                        norm=norm,
                        activation=activation,
                    )
                    self.add_module(side, convolution)
                self.steps[branch].append(list(sides))
                channels = sum(maps for maps, _ in sides.values())
            self.out_channels += channels
        self.pool: nn.Module = (
            nn.MaxPool2d(3, stride=2) if halves else nn.AvgPool2d(3, stride=1, padding=1)
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Concatenate all branches along the channels."""
        outputs = []
        for branch, steps in self.steps.items():
            y_NCHW = self.pool(x_NCHW) if branch == "branch_pool" else x_NCHW
            for names in steps:
                sides = [getattr(self, name)(y_NCHW) for name in names]
                y_NCHW = sides[0] if len(sides) == 1 else torch.cat(sides, 1)
            outputs.append(y_NCHW)
        if "branch_pool" not in self.steps:
            outputs.append(self.pool(x_NCHW))
        return torch.cat(outputs, 1)


class AuxiliaryHead(nn.Module):
    """The classifier on an intermediate layer, for training only (section 4).

    Shape:
        [N, 768, 17, 17] to [N, K].
    """

    def __init__(
        self, in_channels: int, num_classes: int, norm: LayerChoice, activation: LayerChoice
    ) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.conv0 = ConvolutionUnit(in_channels, 128, 1, norm=norm, activation=activation)
        self.conv1 = ConvolutionUnit(128, 768, 5, valid=True, norm=norm, activation=activation)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Compute the logits of this head."""
        x_NCHW = self.avgpool(self.conv1(self.conv0(self.pool(x_NCHW))))
        logits_NK: Tensor = self.fc(torch.flatten(x_NCHW, 1))
        return logits_NK


class InceptionV3(nn.Module):
    """The network of table 1, with torchvision's module names.

    Source:
        Szegedy et al. 2015, table 1 and section 6.

    Shape:
        [N, 3, H, W] to [N, K], 299 x 299 by default; in training with the auxiliary head a
        :class:`~dlzoo.zoo.layers.head.LogitsWithAuxiliary`.

    ONNX:
        Conv, Relu, MaxPool, AveragePool, Concat, ReduceMean, Gemm; never the auxiliary head.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        norm: LayerChoice,
        activation: LayerChoice,
        dropout: float,
        transform_input: bool,
        aux_logits: bool,
    ) -> None:
        super().__init__()
        self.transform = InputRange() if transform_input else nn.Identity()
        channels = 3
        for name, row in STEM.items():
            if row is None:
                self.add_module(name, nn.MaxPool2d(3, stride=2))
                continue
            maps, kernel, stride, padded = row
            unit = ConvolutionUnit(
                channels,
                maps,
                kernel,
                stride=stride,
                valid=not padded,
                norm=norm,
                activation=activation,
            )
            self.add_module(name, unit)
            channels = maps
        self.AuxLogits: AuxiliaryHead | None = None
        for name, branches in MODULES.items():
            module = InceptionModule(channels, branches, norm=norm, activation=activation)
            self.add_module(name, module)
            channels = module.out_channels
            if aux_logits and name == AUXILIARY_AFTER:
                self.AuxLogits = AuxiliaryHead(channels, num_classes, norm, activation)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.1, a=-2, b=2)
        if self.AuxLogits is not None:
            nn.init.trunc_normal_(self.AuxLogits.fc.weight, std=0.001, a=-2, b=2)

    def drop_auxiliary_heads(self) -> None:
        """Remove the auxiliary head, which inference does not need."""
        self.AuxLogits = None

    def forward(self, x_NCHW: Tensor) -> Tensor | LogitsWithAuxiliary:
        """Compute the logits; in training also those of the auxiliary head, if there is one."""
        x_NCHW = self.transform(x_NCHW)
        auxiliary: tuple[Tensor, ...] = ()
        for name in (*STEM, *MODULES):
            x_NCHW = getattr(self, name)(x_NCHW)
            if name == AUXILIARY_AFTER and self.training and self.AuxLogits is not None:
                auxiliary = (self.AuxLogits(x_NCHW),)
        x_NC = torch.flatten(self.avgpool(x_NCHW), 1)
        logits_NK: Tensor = self.fc(self.dropout(x_NC))
        return LogitsWithAuxiliary(logits_NK, auxiliary) if auxiliary else logits_NK


@register_model(
    family="Inception",
    summary="Factorized 5 x 5 and 7 x 7 convolutions, as in torchvision; an auxiliary head "
    "for training with aux_logits=True.",
    paper=PAPER,
    input_shape=(3, 299, 299),
    num_classes=1000,
    num_parameters=23_834_568,
    preprocessing=IMAGENET_299,
    labels="imagenet1k",
    weights=(
        PublishedWeights.from_torchvision(
            "inception_v3_google-0cc3c7bd.pth",
            top1_percent=77.294,
            # The file contains the auxiliary head: it is loaded, then dropped.
            builder_arguments={"aux_logits": True, "transform_input": True},
        ),
    ),
    min_image_size=(75, 75),
)
def inception_v3(
    *,
    num_classes: int = 1000,
    norm: LayerChoice = "batch_norm",
    activation: LayerChoice = "relu",
    dropout: float = 0.5,
    transform_input: bool = False,
    aux_logits: bool = False,
) -> nn.Module:
    """Inception v3 with torchvision's state-dict keys."""
    return InceptionV3(
        num_classes=num_classes,
        norm=norm,
        activation=activation,
        dropout=dropout,
        transform_input=transform_input,
        aux_logits=aux_logits,
    )
