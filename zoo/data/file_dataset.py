"""A data set of image files, decoded as they are read.

Shapes: n images read together, C channels, h and w the geometry's height and width.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlzoo.errors import DataError, ImageError
from dlzoo.image_file import (
    Geometry,
    check_resizing,
    decoder_warnings,
    open_image,
    resize_and_crop,
    resize_window,
)
from dlzoo.zoo.data.dataset import Dataset, SkippedImage, Window

OnCorrupt = Literal["refuse", "skip"]
#: Called with (images checked so far, images in all).
Progress = Callable[[int, int], None]

#: Threads that check images; decoders release the interpreter lock.
_LARGEST_NUM_THREADS = 16
#: Images between two calls of the progress callback.
_REPORT_EVERY = 100


class FileDataset(Dataset):
    """Images of any sizes in files, decoded on demand.

    Args:
        root: folder to which ``paths`` are relative.
        paths: paths of the images, with ``/``.
        name: name of the data set.
        split: ``train``, ``test``, …
        class_names: names of the classes, in the order of the outputs.
        targets: int64 [N], or float32 [N, K] of 0 and 1 if an image can have several labels.
        geometry: how images become [C, h, w] pixels.
        facts: further facts to record about the data, besides the sha256 of the paths.
        skipped: images left out because they cannot be read.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        *,
        name: str,
        split: str,
        class_names: Sequence[str],
        targets: Tensor,
        geometry: Geometry,
        facts: Mapping[str, Any],
        skipped: Sequence[SkippedImage] = (),
    ) -> None:
        # One block of memory, which worker processes share: reference counts of a million strings
        # would make each worker copy them.
        self._paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)
        self._root = root
        listing = hashlib.sha256(b"\n".join(self._paths.tolist())).hexdigest()
        super().__init__(
            name=name,
            split=split,
            class_names=class_names,
            targets=targets,
            geometry=geometry,
            facts={**facts, "listing_sha256": listing},
            skipped=skipped,
        )
        assert len(paths) == len(self.targets)

    def path(self, index: int) -> str:
        """The path of an image within the data set's folder."""
        return os.fsdecode(self._paths[index])

    def read(self, indices: Sequence[int], window: Window | None = None) -> Tensor:
        shape = (len(indices), *self.geometry.crop_size, self.num_channels)
        pixels_nhwC = np.empty(shape, np.uint8)
        for k, index in enumerate(indices):
            path = self.path(index)
            name = _name_of(path, self.name)
            try:
                image = open_image(self._root / path, self.color, name=name)
                if window is None:
                    pixels_nhwC[k] = resize_and_crop(image, self.geometry, name)
                else:
                    part = window(k, image.height, image.width)
                    pixels_nhwC[k] = resize_window(image, part, self.geometry)
            except ImageError as error:
                raise DataError(
                    f'{error} Or leave out such images with `on_corrupt="skip"`.'
                ) from None
        return torch.from_numpy(pixels_nhwC).permute(0, 3, 1, 2).contiguous()


def find_unreadable(
    root: Path,
    paths: Sequence[str],
    *,
    name: str,
    geometry: Geometry,
    progress: Progress | None = None,
) -> tuple[SkippedImage, ...]:
    """Decode every image once, and return those that cannot be decoded."""

    def reason_against(path: str) -> str | None:
        called = _name_of(path, name)
        try:
            image = open_image(root / path, geometry.color, name=called)
            check_resizing(image, geometry, called)
        except ImageError as error:
            return str(error)
        return None

    num_threads = min(os.cpu_count() or 1, _LARGEST_NUM_THREADS)
    skipped = []
    with decoder_warnings(), ThreadPoolExecutor(num_threads) as pool:
        for k, reason in enumerate(pool.map(reason_against, paths)):
            if reason is not None:
                skipped.append(SkippedImage(paths[k], reason))
            if progress is not None and ((k + 1) % _REPORT_EVERY == 0 or k + 1 == len(paths)):
                progress(k + 1, len(paths))
    return tuple(skipped)


def _name_of(path: str, dataset_name: str) -> str:
    """The name of an image in messages."""
    return f"{path} of {dataset_name}"
