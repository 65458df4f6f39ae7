"""Normalizations.

N   samples          H   height
C   channels         W   width
"""

from __future__ import annotations

from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.layer_registry import register_layer

register_layer(
    "batch_norm",
    kind="norm",
    formula="gamma_c (x - mean_c) / sqrt(var_c + eps) + beta_c; over N, H and W in training, "
    "with the running mean and variance in evaluation",
    source="Ioffe & Szegedy 2015, Batch normalization, algorithms 1 and 2",
    onnx_nodes=("BatchNormalization",),
    native=("BatchNormalization", 1),
    onnx="Native in its inference form; folded into a preceding convolution.",
)(nn.BatchNorm2d)


@register_layer(
    "group_norm",
    kind="norm",
    formula="gamma_c (x - mean_ng) / sqrt(var_ng + eps) + beta_c; over H, W and the channels "
    "of group g, for each sample n",
    source="Wu & He 2018, Group normalization, equations 1 and 6",
    onnx_nodes=("Reshape", "InstanceNormalization", "Reshape", "Mul", "Add"),
    native=("GroupNormalization", 21),
    onnx="Through InstanceNormalization up to opset 20; GroupNormalization from 21 on expands "
    "to 29 nodes in ONNX Runtime and is slower.",
)
def group_norm(
    num_channels: int, *, num_groups: int = 32, eps: float = 1e-5, affine: bool = True
) -> nn.GroupNorm:
    """GroupNorm with the number of channels first, like every norm of the zoo.

    ``y = gamma_c (x - mean_ng) / sqrt(var_ng + eps) + beta_c``

    Source:
        Wu & He 2018, "Group normalization"; 32 groups is the paper's default (section 4.1).

    Shape:
        [N, C, ...], kept; C is a multiple of ``num_groups``.

    ONNX:
        Reshape, InstanceNormalization, Reshape, Mul, Add up to opset 20.

    Raises:
        ArgumentError: the number of channels is not a multiple of the number of groups.
    """
    if num_groups < 1 or num_channels % num_groups:
        raise ArgumentError(
            f"GroupNorm: got {num_channels} channels in {num_groups} groups, expected a number "
            "of groups that divides the channels; pass `num_groups`."
        )
    return nn.GroupNorm(num_groups, num_channels, eps=eps, affine=affine)


register_layer(
    "layer_norm",
    kind="norm",
    formula="gamma_c (x - mean) / sqrt(var + eps) + beta_c; over the last axis",
    source="Ba, Kiros & Hinton 2016, Layer normalization, equation 3",
    onnx_nodes=("LayerNormalization",),
    native=("LayerNormalization", 17),
    onnx="Native from opset 17.",
)(nn.LayerNorm)


@register_layer(
    "layer_norm_channels_first",
    kind="norm",
    formula="gamma_c (x - mean_nhw) / sqrt(var_nhw + eps) + beta_c; over the channels of each "
    "pixel",
    source="Liu et al. 2022, A ConvNet for the 2020s, section 2.6",
    onnx_nodes=("Transpose", "LayerNormalization", "Transpose"),
    onnx="ONNX normalizes trailing axes only, so it is between two Transpose.",
)
class LayerNormChannelsFirst(nn.LayerNorm):
    """LayerNorm over the channels of images, for each pixel on its own.

    ``y = gamma_c (x - mean_nhw) / sqrt(var_nhw + eps) + beta_c``

    Source:
        Ba, Kiros & Hinton 2016, "Layer normalization"; Liu et al. 2022, "A ConvNet for the
        2020s", section 2.6.

    Shape:
        [N, C, H, W], kept.

    ONNX:
        Transpose, LayerNormalization, Transpose.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Normalize over C."""
        return super().forward(x_NCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@register_layer(
    "local_response_norm",
    kind="norm",
    formula="x_i / (k + alpha sum_j x_j^2)^beta; j runs over the n channels around i",
    source="Krizhevsky, Sutskever & Hinton 2012, ImageNet classification, section 3.3",
    onnx_nodes=(
        "Mul",
        "Reshape",
        "Pad",
        "AveragePool",
        "Squeeze",
        "Mul",
        "Add",
        "Pow",
        "Div",
    ),
    native=("LRN", 1),
    onnx="torch writes 9 nodes; the native LRN is 2.7 to 4 times slower in ONNX Runtime on CPU.",
)
def local_response_norm(
    num_channels: int | None = None,
    *,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
) -> nn.LocalResponseNorm:
    """LocalResponseNorm with the paper's constants in the paper's meaning.

    ``y_i = x_i / (k + alpha sum_j x_j^2)^beta``, j from ``i - n//2`` to ``i + n//2``, without
    channels beyond the edge

    The paper multiplies the *sum* by alpha. torch, ONNX and Caffe multiply the *mean* over
    ``size`` channels (those beyond the edge count as zeros), so they are passed
    ``alpha * size``. An even ``size`` is refused: torch's window then starts at
    ``i - size/2``, ONNX's ends at ``i + size/2``, and ONNX Runtime has no kernel for it.

    Source:
        Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional
        neural networks", section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75.

    Shape:
        [N, C, H, W], kept. ``num_channels`` is accepted so that all norms are called the same
        way; there is nothing to learn, and any number of channels works.

    ONNX:
        Mul, Reshape, Pad, AveragePool, Squeeze, Mul, Add, Pow, Div.

    Raises:
        ArgumentError: the size is even or not positive.
    """
    if size < 1 or size % 2 == 0:
        raise ArgumentError(
            f"LocalResponseNorm: got size {size}, expected an odd number of channels: torch and "
            f"ONNX place an even window differently. Use {max(1, size - 1)} or {max(1, size + 1)}."
        )
    return nn.LocalResponseNorm(size, alpha=alpha * size, beta=beta, k=k)
