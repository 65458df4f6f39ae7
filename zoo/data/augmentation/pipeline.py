"""The augmentations of a run, applied in order.

Shape legend: N samples, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.augmentation.color import BrightnessContrast, HueSaturation
from dlzoo.zoo.data.augmentation.geometry import (
    HorizontalFlip,
    RandomCrop,
    Rotation,
    Scaling,
    VerticalFlip,
)
from dlzoo.zoo.data.augmentation.mixing import CutMix, MixUp
from dlzoo.zoo.data.augmentation.mosaic import Mosaic
from dlzoo.zoo.data.augmentation.noise import Cutout, GaussianNoise
from dlzoo.zoo.data.augmentation.random_resized_crop import RandomResizedCrop
from dlzoo.zoo.data.sample_draws import SampleDraws

if TYPE_CHECKING:
    from dlzoo.zoo.data.dataset import Window

Augmentation = Annotated[
    HorizontalFlip
    | VerticalFlip
    | RandomCrop
    | RandomResizedCrop
    | Rotation
    | Scaling
    | BrightnessContrast
    | HueSaturation
    | GaussianNoise
    | Cutout
    | MixUp
    | CutMix
    | Mosaic,
    Field(discriminator="name"),
]


class Pipeline:
    """Augmentations in a given order, each with its own random numbers.

    The result is a function of the seed, the epoch, the images and their indices: the worker, the
    rank and the number of threads have no effect, nor has the batch unless the pipeline mixes
    samples. In that case samples of a batch are partners of each other, so a global batch must be
    augmented as a whole, before it is split over ranks (:attr:`is_mixing`).

    An augmentation's random numbers depend on its name and on how many of that name come before
    it, so inserting a different augmentation does not change them.

    **Shape**: images float32 [N, C, H, W] from 0 to 1, to the same; targets int64 [N] or float32
    [N, K], to float32 [N, K] if the pipeline mixes samples, and otherwise unchanged.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        *,
        num_classes: int,
        num_channels: int,
        seed: int,
    ) -> None:
        """Check that the augmentations apply to the images.

        Raises:
            ArgumentError: one of them does not work with this number of channels.
        """
        for augmentation in augmentations:
            if augmentation.num_channels not in (None, num_channels):
                raise ArgumentError(
                    f"Augmentation {augmentation.name!r} needs {augmentation.num_channels} "
                    f"channels (RGB), but the images have {num_channels}. Omit it."
                )
        self.augmentations = tuple(augmentations)
        self.num_classes = num_classes
        self.seed = seed
        counts: Counter[str] = Counter()
        self._scopes = []
        for augmentation in augmentations:
            counts[augmentation.name] += 1
            self._scopes.append(f"{augmentation.name}#{counts[augmentation.name]}")

    @property
    def is_mixing(self) -> bool:
        """Whether samples of a batch are mixed, so that targets become float32 [N, K]."""
        return any(augmentation.is_mixing for augmentation in self.augmentations)

    def window(self, epoch: int, indices: Sequence[int] | Tensor) -> Window | None:
        """The parts to crop from the originals, if the pipeline begins with that.

        Images that were read through it are passed to the pipeline with ``is_windowed=True``.
        """
        if not (self.augmentations and isinstance(self.augmentations[0], RandomResizedCrop)):
            return None
        draws = SampleDraws(self.seed, epoch, indices)
        return self.augmentations[0].windows(draws.scoped(self._scopes[0]))

    def __call__(
        self,
        x_NCHW: Tensor,
        y: Tensor,
        epoch: int,
        indices: Sequence[int] | Tensor,
        *,
        is_windowed: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch; the arguments are not changed.

        Args:
            x_NCHW: the images.
            y: the targets.
            epoch: number of the epoch, from 0.
            indices: the samples' positions in the data set.
            is_windowed: whether the images were read through :meth:`window`.
        """
        draws = SampleDraws(self.seed, epoch, indices)
        first = 1 if is_windowed else 0
        steps = list(zip(self.augmentations, self._scopes, strict=True))[first:]
        for augmentation, scope in steps:
            if augmentation.is_mixing and y.dim() == 1:
                y = F.one_hot(y, self.num_classes).float()
            x_NCHW, y = augmentation.apply(x_NCHW, y, draws.scoped(scope))
        return x_NCHW, y
