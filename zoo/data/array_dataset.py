"""A data set in memory, with images of one size.

Shapes: N images, C channels, H and W height and width of an image, h and w of the geometry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dlzoo.image_file import (
    Geometry,
    crop_or_pad,
    open_image,
    resize_many,
    resize_window,
)
from dlzoo.zoo.data.dataset import Dataset, SkippedImage, Window

#: Resized images are kept up to this total; larger sets are resized as they are read.
_LARGEST_KEPT_BYTES = 2**30
#: Pixels resized in one call of Pillow: some megabytes, which fit the processor's caches.
_PIXELS_AT_ONCE = 2**20


class ArrayDataset(Dataset):
    """Images of one size, resized and cropped once, when the data set is created.

    Args:
        images_NHWC: uint8, C = 3 for RGB and 1 for grey levels.
        targets: int64 [N], or float32 [N, K] of 0 and 1 if an image can have several labels.
        name: name of the data set, e.g. ``mnist``.
        split: ``train``, ``test``, …
        class_names: names of the classes, in the order of the outputs.
        geometry: how images become [C, h, w] pixels.
        facts: further facts to record about the data.
        skipped: images left out because they cannot be read.
    """

    def __init__(
        self,
        images_NHWC: npt.NDArray[np.uint8],
        targets: Tensor,
        *,
        name: str,
        split: str,
        class_names: Sequence[str],
        geometry: Geometry,
        facts: Mapping[str, Any],
        skipped: Sequence[SkippedImage] = (),
    ) -> None:
        assert images_NHWC.dtype == np.uint8
        assert images_NHWC.ndim == 4
        assert len(images_NHWC) == len(targets)
        super().__init__(
            name=name,
            split=split,
            class_names=class_names,
            targets=targets,
            geometry=geometry,
            facts=facts,
            skipped=skipped,
        )
        self.facts.setdefault("image_size", list(images_NHWC.shape[1:3]))
        self._original_NHWC = torch.from_numpy(_in_color(images_NHWC, self.geometry))
        height, width = self.geometry.crop_size
        num_bytes = len(targets) * self.num_channels * height * width
        self._pixels_NChw = None
        if num_bytes <= _LARGEST_KEPT_BYTES:
            self._pixels_NChw = self._fitted(self._original_NHWC)

    def read(self, indices: Sequence[int], window: Window | None = None) -> Tensor:
        index = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        if window is None and self._pixels_NChw is not None:
            return self._pixels_NChw.index_select(0, index)
        original_nHWC = self._original_NHWC.index_select(0, index)
        if window is None:
            return self._fitted(original_nHWC)
        pixels_nhwC = np.empty(
            (len(index), *self.geometry.crop_size, self.num_channels), np.uint8
        )
        for k, image_HWC in enumerate(original_nHWC.numpy()):
            part = window(k, image_HWC.shape[0], image_HWC.shape[1])
            image = open_image(image_HWC, self.color)
            pixels_nhwC[k] = resize_window(image, part, self.geometry)
        return _planes(pixels_nhwC)

    def _fitted(self, images_NHWC: Tensor) -> Tensor:
        """Images resized and cropped, uint8 [N, C, h, w]."""
        originals = images_NHWC.numpy()
        size = originals.shape[1:3]
        resized_size = self.geometry.resized_size(*size)
        crop_size = self.geometry.crop_size
        if resized_size == size:
            return _planes(crop_or_pad(originals, crop_size, axes=(1, 2)))
        largest = max(size[0], resized_size[0]) * max(size[1], resized_size[1])
        num_at_once = max(1, _PIXELS_AT_ONCE // largest)
        fitted = torch.empty(len(originals), self.num_channels, *crop_size, dtype=torch.uint8)
        for first in range(0, len(originals), num_at_once):
            part = originals[first : first + num_at_once]
            part = resize_many(part, *resized_size, self.geometry.interpolation)
            fitted[first : first + num_at_once] = _planes(
                crop_or_pad(part, crop_size, axes=(1, 2))
            )
        return fitted


def _planes(pixels_NhwC: npt.NDArray[np.uint8]) -> Tensor:
    """Pixels with one plane per channel, uint8 [N, C, h, w]."""
    return torch.from_numpy(pixels_NhwC).permute(0, 3, 1, 2).contiguous()


def _in_color(images_NHWC: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Grey levels repeated, or colours weighted as Pillow does for one image (ITU-R 601)."""
    if images_NHWC.shape[3] == geometry.num_channels:
        return np.ascontiguousarray(images_NHWC)
    if geometry.color == "RGB":
        return np.repeat(images_NHWC, 3, axis=3)
    # Pillow gets one tall image, since its conversion is pixel by pixel.
    num_images, height, width, _ = images_NHWC.shape
    tall = Image.fromarray(images_NHWC.reshape(num_images * height, width, 3))
    return np.array(tall.convert("L")).reshape(num_images, height, width, 1)
