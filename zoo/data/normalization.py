"""Normalization of pixels from 0 to 1 into the network's input, fitted to the training images.

Shape legend: N images, C channels, H and W height and width, D = C * H * W.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dlzoo.errors import ArgumentError, CheckpointMismatchError
from dlzoo.zoo.data.normalization_layers import (
    PerImageStandardization,
    Whitening,
    single_thread,
    whitening_matrix,
)
from dlzoo.zoo.data.pixel_statistics import ChannelHistogram, PixelCovariance, checked_batches
from dlzoo.zoo.registry import Preprocessing
from dlzoo.zoo.settings import Settings

#: The smallest standard deviation in served preprocessing (pixels are 1/255 apart).
_SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class FittedNormalization:
    """A shift and a scale of each channel, and an optional layer after them.

    ``z = layer((x - mean) / std)`` with x from 0 to 1. ``mean`` and ``std`` become those of a
    card's :class:`~dlzoo.zoo.registry.Preprocessing`; ``layer`` is part of the exported graph.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    layer: nn.Module | None = None
    #: Notes on the fit for the user.
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """Normalize images in float32, as serving does; the number of threads has no effect.

        **Shape**: float32 [N, C, H, W] from 0 to 1, to the same shape.
        """
        mean, std = (
            torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std)
        )
        z_NCHW = (x_NCHW - mean) / std
        if self.layer is None:
            return z_NCHW
        with single_thread(), torch.no_grad():
            whitened: Tensor = self.layer(z_NCHW)
        return whitened

    def state(self) -> dict[str, Tensor]:
        """All numbers, as tensors for a safetensors file."""
        tensors = {
            "mean": torch.tensor(self.mean, dtype=torch.float64),
            "std": torch.tensor(self.std, dtype=torch.float64),
        }
        if self.layer is not None:
            tensors |= {f"layer.{k}": v.clone() for k, v in self.layer.state_dict().items()}
        return tensors

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> FittedNormalization:
        """The normalization with the numbers that :meth:`state` returned.

        Raises:
            CheckpointMismatchError: the tensors are not those of a normalization.
        """
        names = sorted(state)
        layers: dict[tuple[str, ...], nn.Module | None] = {(): None}
        if "layer.minimum_std" in state:
            layers["layer.minimum_std",] = PerImageStandardization(
                float(state["layer.minimum_std"])
            )
        if "layer.offset" in state and "layer.weight" in state:
            layers["layer.offset", "layer.weight"] = Whitening(
                state["layer.offset"].clone(), state["layer.weight"].clone()
            )
        kind = tuple(name for name in names if name not in ("mean", "std"))
        if kind not in layers or not {"mean", "std"} <= set(names):
            raise CheckpointMismatchError(
                f"A normalization got the tensors {', '.join(names) or 'none'}; expected mean, "
                "std, and layer.minimum_std, or layer.offset and layer.weight, or neither."
            )
        mean, std = (tuple(state[name].double().tolist()) for name in ("mean", "std"))
        return cls(mean, std, layers[kind])


class _Normalization(Settings):
    """A kind of normalization, before it is fitted."""

    @abstractmethod
    def fit(
        self, images: Iterable[Tensor], *, preprocessing: Preprocessing | None = None
    ) -> FittedNormalization:
        """Fit the normalization to the training images, in one pass.

        The result does not depend on the order and size of the batches or the number of threads.

        Args:
            images: batches, uint8 [N, C, H, W], in the geometry of training. If there is nothing to
                fit, only the first one is read.
            preprocessing: the model card's preprocessing, which only ``card`` needs.

        Raises:
            ArgumentError: there are no images, or they do not fit the normalization.
        """


class MeanStd(_Normalization):
    """Mean 0 and standard deviation 1 in each channel: ``(x - mean) / std`` over all images.

    A constant channel is shifted to 0 and not scaled, which is noted.

    **Source**: LeCun et al. 1998, "Efficient BackProp", section 4.3.
    """

    name: Literal["mean-std"] = "mean-std"

    def fit(
        self, images: Iterable[Tensor], *, preprocessing: Preprocessing | None = None
    ) -> FittedNormalization:
        """Fit to the training images."""
        histogram = ChannelHistogram(images)
        return _scaled(histogram.mean, histogram.std)


class MinMax(_Normalization):
    """Range from 0 to 1 in each channel: ``(x - min) / (max - min)`` over all images.

    A constant channel is shifted to 0 and not scaled, which is noted. Images that were not
    used in fitting may leave the range.
    """

    name: Literal["min-max"] = "min-max"

    def fit(
        self, images: Iterable[Tensor], *, preprocessing: Preprocessing | None = None
    ) -> FittedNormalization:
        """Fit to the training images."""
        bounds = ChannelHistogram(images).bounds
        return _scaled(
            tuple(low for low, _ in bounds), tuple(high - low for low, high in bounds)
        )


class PerImage(_Normalization):
    """Mean 0 and standard deviation 1 in each image; nothing is fitted.

    See :class:`~dlzoo.zoo.data.normalization_layers.PerImageStandardization`.
    """

    name: Literal["per-image"] = "per-image"
    minimum_std: float = Field(default=1 / 255, gt=0, le=1)
    """Smallest standard deviation to divide by, where black is 0 and white is 1."""

    def fit(
        self, images: Iterable[Tensor], *, preprocessing: Preprocessing | None = None
    ) -> FittedNormalization:
        """Find the number of channels; nothing is fitted."""
        layer = PerImageStandardization(self.minimum_std)
        return _unchanged(images, layer)


class _WhiteningNormalization(_Normalization):
    epsilon: float = Field(default=0.01, gt=0)
    """Added to the variance of each direction; the mean variance of a pixel is 1."""

    def _fit(
        self, images: Iterable[Tensor], kind: Literal["zca", "pca"]
    ) -> FittedNormalization:
        sums = PixelCovariance(images)
        first = _scaled(sums.channel_mean, sums.channel_std)
        # From here on in units of the channels' standard deviations.
        count = len(sums.mean) // len(first.mean)
        mean, std = (
            torch.tensor(values, dtype=torch.float64).repeat_interleave(count)
            for values in (first.mean, first.std)
        )
        covariance = sums.covariance / (std[:, None] * std)
        weight = whitening_matrix(covariance, self.epsilon, kind)
        offset = (sums.mean - mean) / std
        return FittedNormalization(
            first.mean, first.std, Whitening(offset.float(), weight.float()), first.notes
        )


class ZCA(_WhiteningNormalization):
    """Whiten the images while keeping them as close to the originals as possible.

    ``z = U diag((l + epsilon)^-1/2) U^T (x - mean)`` with ``U diag(l) U^T`` the covariance of
    all C * H * W values of the training images, after channels are scaled to mean 0 and
    standard deviation 1. See :func:`~dlzoo.zoo.data.normalization_layers.whitening_matrix`.
    """

    name: Literal["zca"] = "zca"

    def fit(
        self, images: Iterable[Tensor], *, preprocessing: Preprocessing | None = None
    ) -> FittedNormalization:
        """Fit to training images with at most 4096 values each."""
        return self._fit(images, "zca")


class PCA(_WhiteningNormalization):
    """Whiten the images into their principal components, the strongest first.

    As ``zca`` without the rotation back into an image: [C, H, W] holds components in row-major
    order instead of pixels. For networks without convolutions.
    """

    name: Literal["pca"] = "pca"

    def fit(
        self, images: Iterable[Tensor], *, preprocessing: Preprocessing | None = None
    ) -> FittedNormalization:
        """Fit to training images with at most 4096 values each."""
        return self._fit(images, "pca")


class CardNormalization(_Normalization):
    """The mean and standard deviation on the model card, e.g. those of published weights."""

    name: Literal["card"] = "card"

    def fit(
        self, images: Iterable[Tensor], *, preprocessing: Preprocessing | None = None
    ) -> FittedNormalization:
        """Take the numbers of the card."""
        if preprocessing is None:
            raise ArgumentError(
                "Normalization 'card' needs a model of the zoo, but this one has no card. "
                "Choose another normalization, e.g. 'mean-std'."
            )
        num_channels = _num_channels(images)
        if len(preprocessing.mean) != num_channels:
            raise ArgumentError(
                f"Normalization 'card' has {len(preprocessing.mean)} channels, but the images have "
                f"{num_channels}. Choose another normalization, e.g. 'mean-std'."
            )
        return FittedNormalization(preprocessing.mean, preprocessing.std)


class NoNormalization(_Normalization):
    """Unchanged pixels from 0 to 1."""

    name: Literal["none"] = "none"

    def fit(
        self, images: Iterable[Tensor], *, preprocessing: Preprocessing | None = None
    ) -> FittedNormalization:
        """Find the number of channels; nothing is fitted."""
        return _unchanged(images, None)


Normalization = Annotated[
    MeanStd | MinMax | PerImage | ZCA | PCA | CardNormalization | NoNormalization,
    Field(discriminator="name"),
]


def _scaled(mean: tuple[float, ...], std: tuple[float, ...]) -> FittedNormalization:
    """A shift and a scale, except for constant channels, which are only shifted."""
    notes = tuple(
        f"Channel {number} is {value:.4g} in every pixel of the training images: "
        "it is shifted to 0 but not scaled."
        for number, (value, width) in enumerate(zip(mean, std, strict=True))
        if width < _SMALLEST_STD
    )
    kept = tuple(width if width >= _SMALLEST_STD else 1.0 for width in std)
    return FittedNormalization(mean, kept, None, notes)


def _unchanged(images: Iterable[Tensor], layer: nn.Module | None) -> FittedNormalization:
    num_channels = _num_channels(images)
    return FittedNormalization((0.0,) * num_channels, (1.0,) * num_channels, layer)


def _num_channels(images: Iterable[Tensor]) -> int:
    return next(checked_batches(images)).shape[1]
