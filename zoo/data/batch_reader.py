"""What one process reads of a batch, augmented and normalized.

Shapes: N images, C channels, h and w their height and width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlzoo.errors import DlzooError
from dlzoo.zoo.data.dataset import Dataset, Window

#: Images float32 [N, C, h, w] and targets; or what is wrong with them.
Result = tuple[Tensor, Tensor] | DlzooError
#: The last step, on images in [0, 1].
Normalize = Callable[[Tensor], Tensor]


class Augment(Protocol):
    """Changes images and targets, at random but the same for the same epoch and indices.

    Where it has a true ``is_mixing``, it combines the images of a batch, so that it is given
    global batches whole.
    """

    def __call__(
        self, images: Tensor, targets: Tensor, epoch: int, indices: Tensor, /
    ) -> tuple[Tensor, Tensor]:
        """Images float32 [N, C, h, w] in [0, 1]; targets of int64 [N] may become float32 [N, K]."""


@runtime_checkable
class CropsOriginals(Protocol):
    """An augmentation that chooses the part of each image to read, at its original size."""

    def window(self, epoch: int, indices: Tensor, /) -> Window | None:
        """The part to read of each image; None reads as serving does."""

    def __call__(
        self,
        images: Tensor,
        targets: Tensor,
        epoch: int,
        indices: Tensor,
        /,
        *,
        is_windowed: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The rest; ``is_windowed`` where images were read through :meth:`window`."""


@dataclass(frozen=True)
class Share:
    """What one process reads of a global batch."""

    epoch: int
    number: int
    #: Of the whole global batch.
    indices: npt.NDArray[np.int64]
    rank: int
    world_size: int

    @property
    def mine(self) -> slice:
        """This process's images among those of the global batch."""
        return slice(self.rank, None, self.world_size)


class BatchReader:
    """Reads a share, in this process or in a worker."""

    def __init__(
        self, dataset: Dataset, augment: Augment | None, normalize: Normalize | None
    ) -> None:
        self._dataset = dataset
        self._augment = augment
        self._normalize = normalize

    def __call__(self, share: Share) -> Result:
        try:
            return self._read(share)
        except DlzooError as error:  # to be raised where it is asked for, in one line
            return error

    def _read(self, share: Share) -> tuple[Tensor, Tensor]:
        is_mixing = getattr(self._augment, "is_mixing", False)
        chosen = share.indices if is_mixing else share.indices[share.mine].copy()
        indices = torch.from_numpy(chosen)
        window = None
        if isinstance(self._augment, CropsOriginals) and len(indices):
            window = self._augment.window(share.epoch, indices)
        pixels = self._dataset.read(chosen.tolist(), window)
        # As serving divides: 255 has no exact reciprocal.
        images = pixels.to(torch.float32).div_(255.0)
        targets = self._dataset.targets[indices]
        # An empty share has nothing to change, and not every operation takes it.
        if self._augment is not None and len(indices):
            if window is not None:
                assert isinstance(self._augment, CropsOriginals)
                images, targets = self._augment(
                    images, targets, share.epoch, indices, is_windowed=True
                )
            else:
                images, targets = self._augment(images, targets, share.epoch, indices)
        if is_mixing:
            images, targets = images[share.mine], targets[share.mine]
        if self._normalize is not None and len(images):
            images = self._normalize(images)
        return images.contiguous(), targets.contiguous()
