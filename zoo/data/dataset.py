"""One split of a data set: labelled images that are read by index.

Shapes: N images in all, n images read together, C channels, H and W height and width of an
image, h and w of the geometry, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlzoo.image_file import Color, Geometry

#: The part of an image to read: a function of k (the image is the k-th of the indices) and the
#: image's height and width, to (top, left, height, width), which is then resized to (h, w).
Window = Callable[[int, int, int], tuple[int, int, int, int]]


@dataclass(frozen=True)
class SkippedImage:
    """An image that was left out: its path in the data set, and the reason."""

    path: str
    reason: str


class Dataset(ABC):
    """One split of a data set, with one geometry for all images.

    Args:
        name: name of the data set, e.g. ``mnist``.
        split: ``train``, ``test``, …
        class_names: names of the classes, in the order of the outputs.
        targets: int64 [N], or float32 [N, K] of 0 and 1 if an image can have several labels.
        geometry: how images become [C, h, w] pixels.
        facts: further facts to record about the data: source, license, sha256.
        skipped: images left out because they cannot be read.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        class_names: Sequence[str],
        targets: Tensor,
        geometry: Geometry,
        facts: Mapping[str, Any],
        skipped: Sequence[SkippedImage] = (),
    ) -> None:
        assert targets.dtype == (torch.float32 if targets.ndim == 2 else torch.int64)
        self.name = name
        self.split = split
        self.class_names = tuple(class_names)
        self.targets = targets
        self.geometry = geometry
        self.skipped = tuple(skipped)
        self.facts = {
            "name": name,
            "split": split,
            "num_images": len(targets),
            "num_classes": len(self.class_names),
            **facts,
        }
        if self.skipped:
            self.facts["skipped"] = [image.path for image in self.skipped]

    @property
    def is_multi_label(self) -> bool:
        """Whether an image can have several labels or none."""
        return self.targets.ndim == 2

    @property
    def color(self) -> Color:
        """``RGB``, or ``L`` for grey levels."""
        return self.geometry.color

    @property
    def num_channels(self) -> int:
        """3 for RGB, 1 for grey levels."""
        return self.geometry.num_channels

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def read(self, indices: Sequence[int], window: Window | None = None) -> Tensor:
        """Read images, in the order of the indices.

        Without ``window``, the pixels are bit for bit those that a server passes to the network for
        the same image (:func:`~dlzoo.image_file.resize_and_crop`).

        **Shape**: uint8 [n, C, h, w].

        Raises:
            DataError: an image cannot be read.
        """
