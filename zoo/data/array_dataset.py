"""A data set whose images all have one size and lie in memory.

Shapes: N images, C channels, H and W their own height and width, h and w the geometry's.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from dlzoo.zoo.data.dataset import Dataset, Window

#: Up to so many bytes the resized images are kept; larger sets are resized as they are read.
_LARGEST_KEPT_BYTES = 2**30
#: Resized in one call of Pillow: some megabytes, which stay in the processor's caches.
_PIXELS_AT_ONCE = 2**20


class ArrayDataset(Dataset):
    """Images of one size, resized and cropped once, when the data set is made.

    Args:
        images_NHWC: uint8, C = 3 for RGB and 1 for grey levels.
        targets: as :class:`~dlzoo.zoo.data.dataset.Dataset` has them.
        facts: the other arguments of :class:`~dlzoo.zoo.data.dataset.Dataset`.
    """

    def __init__(
        self, images_NHWC: npt.NDArray[np.uint8], targets: Tensor, **facts: Any
    ) -> None:
        assert images_NHWC.dtype == np.uint8
        assert images_NHWC.ndim == 4
        assert len(images_NHWC) == len(targets)
        super().__init__(targets=targets, **facts)
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
        """Resized and cropped, uint8 [N, C, h, w]."""
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
    """One plane for each channel, uint8 [N, C, h, w]."""
    return torch.from_numpy(pixels_NhwC).permute(0, 3, 1, 2).contiguous()


def _in_color(images_NHWC: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Grey levels repeated, or colours weighed as Pillow does for one image (ITU-R 601)."""
    if images_NHWC.shape[3] == geometry.num_channels:
        return np.ascontiguousarray(images_NHWC)
    if geometry.color == "RGB":
        return np.repeat(images_NHWC, 3, axis=3)
    # Pillow sees one tall image; its conversion is pixel by pixel.
    num_images, height, width, _ = images_NHWC.shape
    tall = Image.fromarray(images_NHWC.reshape(num_images * height, width, 3))
    return np.array(tall.convert("L")).reshape(num_images, height, width, 1)
