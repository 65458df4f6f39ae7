"""Turn an image file into the network's input, with only Pillow and NumPy.

The pixels are the same as ``zoo.data.image_preprocessor`` computes inside a graph.

Shapes: H and W image height and width, C channels, h and w the network's height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import BundleError
from dlzoo.image_file import (
    FILTERS,
    NUM_CHANNELS,
    Color,
    Geometry,
    ImageSource,
    describe_source,
    open_image,
    resize_and_crop,
)


def image_array(source: ImageSource, color: Color = "RGB") -> npt.NDArray[np.uint8]:
    """Read the pixels of one image, as a bundle with included preprocessing takes them.

    The image is oriented as a viewer shows it; see :func:`~dlzoo.image_file.open_image`.

    **Shape**: uint8 [1, H, W, C], C = 3 for ``RGB`` and 1 for ``L`` (grey levels).

    Raises:
        ImageError: the file is missing, is not a complete image, or is too large.
    """
    image = open_image(source, color)
    # np.asarray would give Pillow's own memory, which cannot be written to.
    pixels = np.array(image, dtype=np.uint8)
    return pixels.reshape(1, image.height, image.width, -1)


def tensor_from_image(
    source: ImageSource, preprocessing: Mapping[str, Any]
) -> npt.NDArray[np.float32]:
    """Resize, crop, scale and normalize one image, as a manifest's ``preprocessing`` says.

    ``x = (crop(resize(image)) / 255 - mean) / std``

    **Shape**: float32 [1, C, h, w].

    Raises:
        ImageError: the file is missing, is not a complete image, or is too large.
        BundleError: ``preprocessing`` is damaged.
    """
    spec = ImageSpec.from_mapping(preprocessing)
    image = open_image(source, spec.color)
    pixels_hwC = resize_and_crop(image, spec, describe_source(source))
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    x_hwC = (pixels_hwC.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(x_hwC.transpose(2, 0, 1)[np.newaxis])


#: The largest side of a resized or cropped image: more than any network takes, so that a damaged
#: manifest cannot ask for more memory.
_MAX_SIZE = 2**14
#: The largest mean or standard deviation of pixels, which lie between 0 and 1 in steps of 1/255.
_MAX_SCALE = 1e6


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Geometry):
    """How images become a network's input: a manifest's ``preprocessing``, checked."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_mapping(cls, preprocessing: Mapping[str, Any]) -> ImageSpec:
        """Read and check a manifest's ``preprocessing``.

        Raises:
            BundleError: a field is missing, or its value makes no sense.
        """
        try:
            size = preprocessing["resize_size"]
            height, width = (int(n) for n in preprocessing["crop_size"])
            spec = cls(
                color=preprocessing["color"],
                resize_size=None if size is None else int(size),
                crop_size=(height, width),
                interpolation=preprocessing["interpolation"],
                mean=tuple(float(value) for value in preprocessing["mean"]),
                std=tuple(float(value) for value in preprocessing["std"]),
            )
            num_channels = NUM_CHANNELS[spec.color]
            is_sound = (
                spec.interpolation in FILTERS
                and all(
                    1 <= n <= _MAX_SIZE
                    for n in (height, width, size if size is not None else 1)
                )
                and len(spec.mean) == len(spec.std) == num_channels
                and all(abs(value) <= _MAX_SCALE for value in spec.mean)
                and all(1 / _MAX_SCALE <= value <= _MAX_SCALE for value in spec.std)
            )
        except (KeyError, TypeError, ValueError):
            is_sound = False
        if not is_sound:
            raise BundleError(
                f"The bundle's preprocessing is {str(dict(preprocessing))[:200]}, expected color, "
                "resize_size, crop_size, interpolation, mean and std. Export the bundle again."
            )
        return spec
