"""All augmentations of a run, one after the other.

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
    """Augmentations in the order given, each with random numbers of its own.

    The result is a function of the seed, the epoch, the images and their indices: not of the
    worker, the rank or the number of threads. What has no mixing in it does not depend on the
    batch either. Where there is mixing, the samples of a batch are partners of each other, so a
    global batch must be augmented whole, before it is split over ranks (:attr:`is_mixing`).

    An augmentation's random numbers follow from its name and how many of that name stand before
    it: putting another one before it does not change them.

    **Shape**: images float32 [N, C, H, W] from 0 to 1, to the same; targets int64 [N] or float32
    [N, K], to float32 [N, K] where there is mixing, else as they are.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        *,
        num_classes: int,
        num_channels: int,
        seed: int,
    ) -> None:
        """Check that the augmentations fit the images.

        Raises:
            ArgumentError: one of them does not work on images with so many channels.
        """
        for augmentation in augmentations:
            if augmentation.num_channels not in (None, num_channels):
                raise ArgumentError(
                    f"Augmentation {augmentation.name!r} needs {augmentation.num_channels} "
                    f"channels (RGB), the images have {num_channels}. Leave it out."
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
        """Whether samples of a batch are mixed: targets become float32 [N, K] then."""
        return any(augmentation.is_mixing for augmentation in self.augmentations)

    def window(self, epoch: int, indices: Sequence[int] | Tensor) -> Window | None:
        """The parts to cut from the originals, where the pipeline begins with that.

        Images that were read through it are given to the pipeline with ``is_windowed=True``.
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
        """Augment a batch; the arguments themselves stay as they are.

        Args:
            x_NCHW: images.
            y: targets.
            epoch: from 0.
            indices: the samples' places in the data set.
            is_windowed: the images were read through :meth:`window`.
        """
        draws = SampleDraws(self.seed, epoch, indices)
        first = 1 if is_windowed else 0
        steps = list(zip(self.augmentations, self._scopes, strict=True))[first:]
        for augmentation, scope in steps:
            if augmentation.is_mixing and y.dim() == 1:
                y = F.one_hot(y, self.num_classes).float()
            x_NCHW, y = augmentation.apply(x_NCHW, y, draws.scoped(scope))
        return x_NCHW, y
