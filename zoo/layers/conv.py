"""Convolution, and the output size of sliding windows.

N   samples          H   height
C   channels         W   width
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.layer_registry import LayerChoice, register_layer, resolve_layer

Size = int | tuple[int, int]
Padding = Literal["valid", "same"] | Size


def output_size(
    n_in: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    exact: bool = False,
) -> int:
    """Number of positions of a convolution's or a pooling's window along one axis.

    ``n_out = (n_in + 2p - d (f - 1) - 1) / s + 1``, for d = 1: ``(n_in + 2p - f) / s + 1``,
    rounded down; rounded up with ``ceil_mode``, except that no window starts in the padding at
    the end

    Source:
        Dumoulin & Visin 2016, "A guide to convolution arithmetic", relationships 6 and 15;
        the rule for ``ceil_mode`` is ``torch.nn.MaxPool2d``'s.

    Units:
        Pixels. With ``exact`` a stride that leaves pixels over is refused.

    Raises:
        ArgumentError: the window is larger than the padded input, an argument is out of
            range, or ``exact`` does not hold.

    Example:
        >>> output_size(227, 11, stride=4, exact=True)
        55
    """
    for name, value, least in (
        ("kernel size", kernel_size, 1),
        ("stride", stride, 1),
        ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):
        if value < least:
            raise ArgumentError(
                f"Sliding window: got {name} {value}, expected {least} or more."
            )
    extent = dilation * (kernel_size - 1) + 1
    room = n_in + 2 * padding - extent
    if n_in < 1 or room < 0:
        raise ArgumentError(
            f"Sliding window: got {n_in} pixels and padding {padding}, expected at least "
            f"{max(1, extent - 2 * padding)} pixels for a window of {extent}; use a larger image "
            "or more padding."
        )
    if exact and room % stride:
        raise ArgumentError(
            f"Sliding window: got (n_in + 2p - f) = {room}, expected a multiple of the stride "
            f"{stride}; use {n_in + stride - room % stride} pixels or another padding."
        )
    if not ceil_mode:
        return room // stride + 1
    n_out = -(-room // stride) + 1
    return n_out - 1 if (n_out - 1) * stride >= n_in + padding else n_out


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def same_padding(kernel_size: Size, dilation: Size = 1) -> tuple[int, int]:
    """The padding that keeps the size at stride 1, and gives ``ceil(n / s)`` at stride s.

    ``p = d (f - 1) / 2`` on each side

    Source:
        Dumoulin & Visin 2016, "A guide to convolution arithmetic", section 2.3.

    Raises:
        ArgumentError: the extent is even, so no equal padding on both sides keeps the size.
    """
    padding = []
    for f, d in zip(_pair(kernel_size), _pair(dilation), strict=True):
        if d * (f - 1) % 2:
            raise ArgumentError(
                f"Convolution: got padding 'same' with kernel size {f} and dilation {d}, expected "
                "an odd kernel: an even one needs unequal sides. Give the padding in pixels."
            )
        padding.append(d * (f - 1) // 2)
    return padding[0], padding[1]


@register_layer(
    "convolution",
    kind="conv",
    formula="y_o = b_o + sum_{c,i,j} w_{o,c,i,j} x_{c, s h + d i - p, s w + d j - p}; "
    "n_out = (n_in + 2p - f)/s + 1",
    source="LeCun et al. 1998, section II.A; Dumoulin & Visin 2016, relationship 6",
    onnx_nodes=("Conv",),
    native=("Conv", 1),
    onnx="Native, with explicit pads; never auto_pad, which runtimes read differently.",
)
def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    *,
    stride: Size = 1,
    padding: Padding = "valid",
    dilation: Size = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """A two-dimensional convolution with padding by name or in pixels.

    ``y_o = b_o + sum_{c,i,j} w_{o,c,i,j} x_{c, s h + d i - p, s w + d j - p}``

    ``valid`` is p = 0 and ``same`` is p = d (f - 1) / 2 on all sides. Both become numbers
    here, so that ``same`` also works with a stride: torch refuses that combination, and
    TensorFlow's padding depends on the size of the image.

    Source:
        LeCun et al. 1998, section II.A.

    Shape:
        [N, in_channels, H, W] to [N, out_channels, H', W'], each by :func:`output_size`.

    ONNX:
        Conv with explicit pads.

    Raises:
        ArgumentError: the padding is neither a name nor a number, or ``same`` with an even
            kernel.
    """
    if padding == "valid":
        padding = 0
    elif padding == "same":
        padding = same_padding(kernel_size, dilation)
    elif isinstance(padding, str):
        raise ArgumentError(
            f"Convolution: got padding {padding!r}, expected 'valid', 'same' or pixels."
        )
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


class ConvolutionUnit(nn.Module):
    """Convolution, an optional norm, then the activation, as in Inception.

    ``y = activation(norm(w * x + b))``, with b only if there is no norm

    Source:
        Ioffe & Szegedy 2015, "Batch normalization", section 3.2. The norm's eps of 0.001 is
        TensorFlow's, with which Inception's published weights were trained.

    Shape:
        [N, in_channels, H, W] to [N, out_channels, H', W'].

    ONNX:
        Conv and Relu: in evaluation mode the normalization is folded into the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        *,
        stride: int = 1,
        valid: bool = False,
        norm: LayerChoice | None,
        activation: LayerChoice,
    ) -> None:
        super().__init__()
        self.conv = convolution(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding="valid" if valid else "same",
            bias=norm is None,
        )
        self.bn = (
            None if norm is None else resolve_layer(norm, "norm")(out_channels, eps=0.001)
        )
        self.activation = resolve_layer(activation, "activation")()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Convolve, normalize, activate."""
        x_NCHW = self.conv(x_NCHW)
        if self.bn is not None:
            x_NCHW = self.bn(x_NCHW)
        y_NCHW: Tensor = self.activation(x_NCHW)
        return y_NCHW
