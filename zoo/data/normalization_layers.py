"""Normalizations beyond a shift and a scale of each channel, as modules.

They run after ``(pixel / 255 - mean) / std``, in training and in the exported graph.

Shape legend: N images, C channels, H and W height and width, D = C * H * W.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.errors import ArgumentError


class PerImageStandardization(nn.Module):
    """Standardize each image to mean 0 and standard deviation 1: ``(x - m) / max(s, minimum_std)``.

    m and s are over all D values of the image; s divides by D, not D - 1. An image of one colour
    becomes 0.

    **Source**: TensorFlow, ``tf.image.per_image_standardization`` (there the smallest s is
    ``1 / sqrt(D)``).

    **Shape**: [N, C, H, W], any size.

    **ONNX**: ReduceMean, Sub, Mul, ReduceMean, Sqrt, Max, Div.
    """

    minimum_std: Tensor

    def __init__(self, minimum_std: float) -> None:
        super().__init__()
        self.register_buffer("minimum_std", torch.tensor(minimum_std))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Standardize each image."""
        centred = x_NCHW - x_NCHW.mean((1, 2, 3), keepdim=True)
        variance = (centred * centred).mean((1, 2, 3), keepdim=True)
        return centred / torch.maximum(variance.sqrt(), self.minimum_std)


class Whitening(nn.Module):
    """Decorrelate all values of an image: ``z = W (x - offset)``, x as a vector of D values.

    **Shape**: [N, C, H, W] with C * H * W = D, to the same shape.

    **ONNX**: Reshape, Sub, Gemm, Reshape.
    """

    offset: Tensor
    weight: Tensor

    def __init__(self, offset_D: Tensor, weight_DD: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset_D)
        self.register_buffer("weight", weight_DD)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Whiten each image.

        Raises:
            ArgumentError: the images have another number of values.
        """
        if x_NCHW[0].numel() != len(self.offset):
            raise ArgumentError(
                f"An image has {list(x_NCHW.shape[1:])} = {x_NCHW[0].numel()} values, but the "
                f"whitening was fitted to {len(self.offset)}. Give images of the size it was "
                "fitted to."
            )
        centred_ND = x_NCHW.flatten(1) - self.offset
        return F.linear(centred_ND, self.weight).reshape(x_NCHW.shape)


def whitening_matrix(
    covariance_DD: Tensor, epsilon: float, kind: Literal["zca", "pca"]
) -> Tensor:
    """The matrix that turns a covariance into the identity, up to ``epsilon``.

    With ``covariance = U diag(l) U^T``: PCA ``W = diag((l + epsilon)^-1/2) U^T``, ZCA ``U`` times
    that. A direction of variance l has ``l / (l + epsilon)`` afterwards. PCA's rows are in order
    of decreasing l, each with its largest entry positive.

    **Source**: Bell and Sejnowski 1997, "The 'Independent Components' of Natural Scenes are Edge
    Filters", section 2 (ZCA); Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny
    Images", appendix A.
    """
    with single_thread():  # the last bits of eigenvectors depend on the number of threads
        variances, directions = torch.linalg.eigh(covariance_DD.double())
        variances, directions = variances.flip(0).clamp(min=0), directions.flip(1)
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        directions = directions * torch.where(largest < 0, -1.0, 1.0)
        principal = directions.T / (variances + epsilon).sqrt()[:, None]
        whitening: Tensor = directions @ principal if kind == "zca" else principal
    return whitening


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute on one thread, so that rounded sums do not depend on the number of cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
