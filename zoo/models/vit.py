"""Vision Transformer: an image as a sequence of patches.

N   samples          H   height          K   classes
C   channels         W   width
T   tokens: one for the class, then one a patch
E   width of a token

Source:
    Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold,
    Gelly, Uszkoreit, Houlsby: An Image is Worth 16x16 Words, ICLR 2021, section 3.1, Table 1 and
    appendix D.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.preprocessing import IMAGENET_224
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.registry import Paper, PublishedWeights, register_model

VIT_PAPER = Paper(
    title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
    authors="Alexey Dosovitskiy, Lucas Beyer, Alexander Kolesnikov, Dirk Weissenborn, Xiaohua Zhai, "
    "Thomas Unterthiner, Mostafa Dehghani, Matthias Minderer, Georg Heigold, Sylvain Gelly, "
    "Jakob Uszkoreit, Neil Houlsby",
    year=2020,
    url="https://arxiv.org/abs/2010.11929",
)

#: Table 1, ViT-Base: layers, width of a token, width inside the MLP, attention heads.
BASE_NUM_LAYERS = 12
BASE_WIDTH = 768
BASE_MLP_WIDTH = 3072
BASE_NUM_HEADS = 12
#: Not in the paper, but in its published code.
LAYER_NORM_EPS = 1e-6

_LEGACY_KEY = re.compile(r"\.mlp\.linear_([12])\.")
_MLP_INDEX = {"1": "0", "2": "3"}


def remap_legacy_keys(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename ``mlp.linear_1.weight``, as published, to ``mlp.0.weight``, and ``linear_2`` to ``3``.

    The published file is from before torchvision made the MLP a sequence. Other keys stay.
    """
    return {
        _LEGACY_KEY.sub(lambda match: f".mlp.{_MLP_INDEX[match[1]]}.", key): value
        for key, value in state_dict.items()
    }


class EncoderBlock(nn.Module):
    """Attention between tokens, then an MLP on each, both with normalized input and a shortcut.

    z' = z + MSA(LN(z)),  y = z' + MLP(LN(z'))

    Source:
        Equations 2 and 3; multi-head attention: equations 5 to 8.

    Shape:
        [N, T, E], kept.

    ONNX:
        LayerNormalization, MatMul and Add for the projections, MatMul, Softmax, MatMul for the
        attention, Gelu (opset 20 on).
    """

    def __init__(
        self,
        width: int,
        mlp_width: int,
        num_heads: int,
        *,
        dropout: float,
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.self_attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.ln_2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
            nn.Dropout(dropout),
        )

    def forward(self, z_NTE: Tensor) -> Tensor:
        normal_NTE = self.ln_1(z_NTE)
        attended_NTE, _ = self.self_attention(
            normal_NTE, normal_NTE, normal_NTE, need_weights=False
        )
        z_NTE = z_NTE + self.dropout(attended_NTE)
        y_NTE: Tensor = z_NTE + self.mlp(self.ln_2(z_NTE))
        return y_NTE


class Encoder(nn.Module):
    """Adds the position embedding, then applies the blocks and a final LayerNorm.

    Source:
        Equations 1 (E_pos) and 4.

    Shape:
        [N, T, E], kept; T is fixed by the position embedding.
    """

    def __init__(
        self,
        num_tokens: int,
        num_layers: int,
        width: int,
        mlp_width: int,
        num_heads: int,
        *,
        dropout: float,
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, num_tokens, width))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential()
        for index in range(num_layers):
            self.layers.add_module(
                f"encoder_layer_{index}",
                EncoderBlock(
                    width, mlp_width, num_heads, dropout=dropout, activation=activation
                ),
            )
        self.ln = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, z_NTE: Tensor) -> Tensor:
        z_NTE = self.dropout(z_NTE + self.pos_embedding)
        y_NTE: Tensor = self.ln(self.layers(z_NTE))
        return y_NTE


class VisionTransformer(nn.Module):
    """A transformer encoder over patches and a class token, which is classified.

    Patches start from a truncated normal of variance 1 / fan in, the MLPs from Xavier's uniform
    distribution with biases near zero, position embeddings from N(0, 0.02). The head starts from
    N(0, 0.02) and not from zero: with a zero head, no weight of an untrained network would affect
    the output or get a gradient.

    Source:
        Figure 1 and section 3.1; initialization of the head: DeiT (Touvron et al. 2021), of the
        rest: torchvision.

    Shape:
        [N, 3, S, S] to logits [N, K], S the image size of the position embedding.

    ONNX:
        Conv, Reshape, Transpose, Expand, Concat, Add, the blocks, Gather, Gemm.

    Raises:
        ArgumentError: from forward, for an image of another size.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        num_layers: int,
        width: int,
        mlp_width: int,
        num_heads: int,
        num_classes: int,
        dropout: float,
        activation: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        if image_size < 1 or image_size % patch_size:
            raise ArgumentError(
                f"`image_size` got {image_size}, expected a multiple of the patch size "
                f"{patch_size}; use {max(1, round(image_size / patch_size)) * patch_size}."
            )
        self.image_size = image_size
        self.conv_proj = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        num_tokens = (image_size // patch_size) ** 2 + 1
        self.encoder = Encoder(
            num_tokens,
            num_layers,
            width,
            mlp_width,
            num_heads,
            dropout=dropout,
            activation=activation,
        )
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(width, num_classes))
        self._initialize()

    def _initialize(self) -> None:
        fan_in = self.conv_proj.weight[0].numel()
        nn.init.trunc_normal_(self.conv_proj.weight, std=math.sqrt(1 / fan_in))
        assert self.conv_proj.bias is not None
        nn.init.zeros_(self.conv_proj.bias)
        nn.init.normal_(self.encoder.pos_embedding, std=0.02)
        for block in self.encoder.layers.children():
            assert isinstance(block, EncoderBlock)
            for module in block.mlp:
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    nn.init.normal_(module.bias, std=1e-6)
        head = self.heads.get_submodule("head")
        assert isinstance(head, nn.Linear)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        height, width = x_NCHW.shape[-2:]
        if height != self.image_size or width != self.image_size:
            raise ArgumentError(
                f"ViT: got an image of {height} x {width} pixels, expected "
                f"{self.image_size} x {self.image_size}, the size of its position embedding; "
                "resize the image, or build the model with another `image_size`."
            )
        patches_NTE = self.conv_proj(x_NCHW).flatten(2).transpose(1, 2)
        class_N1E = self.class_token.expand(x_NCHW.shape[0], -1, -1)
        z_NTE = self.encoder(torch.cat([class_N1E, patches_NTE], dim=1))
        logits_NK: Tensor = self.heads(z_NTE[:, 0])
        return logits_NK


@register_model(
    family="ViT",
    summary="transformer over patches of 16 x 16 pixels",
    paper=VIT_PAPER,
    input_shape=(3, 224, 224),
    num_classes=1000,
    num_parameters=86_567_656,
    preprocessing=IMAGENET_224,
    labels="imagenet1k",
    weights=(PublishedWeights.from_torchvision("vit_b_16-c867db91.pth", top1_percent=81.072),),
    min_image_size=(224, 224),
    remap_keys=remap_legacy_keys,
)
def vit_b_16(
    *,
    num_classes: int = 1000,
    image_size: int = 224,
    dropout: float = 0.0,
    activation: LayerChoice = "gelu",
) -> nn.Module:
    """ViT-Base with patches of 16 x 16 pixels.

    Args:
        num_classes: outputs of the last layer.
        image_size: height and width of every image, a multiple of 16.
        dropout: probability of dropping a feature, in training; the paper trains on ImageNet
            alone with 0.1.
        activation: name of an activation, or its builder.

    Raises:
        ArgumentError: the image size is not a multiple of 16.
    """
    return VisionTransformer(
        image_size=image_size,
        patch_size=16,
        num_layers=BASE_NUM_LAYERS,
        width=BASE_WIDTH,
        mlp_width=BASE_MLP_WIDTH,
        num_heads=BASE_NUM_HEADS,
        num_classes=num_classes,
        dropout=dropout,
        activation=resolve_layer(activation, "activation"),
    )
