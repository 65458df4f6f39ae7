"""From an image file to the network's input, with Pillow and NumPy alone.

The same pixels as ``zoo.data.image_preprocessor`` computes inside a graph.

Shapes: H and W image height and width, C channels, h and w the network's height and width.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from dlzoo.errors import BundleError, ImageError

#: An image: its file, the bytes of a file, or pixels, uint8 [H, W, C].
ImageSource = Path | str | bytes | npt.NDArray[np.uint8]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_NUM_CHANNELS = {"RGB": 3, "L": 1}

#: Pillow's modes of whole numbers that may be wider than 8 bits.
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


def image_array(source: ImageSource, color: str = "RGB") -> npt.NDArray[np.uint8]:
    """The pixels of one image, as a bundle with included preprocessing takes them.

    The picture as a viewer shows it: turned as its EXIF orientation says, transparent parts on
    white, palettes, CMYK and 16-bit grey levels converted; the first frame of several.

    **Shape**: uint8 [1, H, W, C], C = 3 for ``RGB`` and 1 for ``L`` (grey levels).

    Raises:
        ImageError: there is no file, or it is no whole image, or too large.
    """
    image = _open(source, color)
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
        ImageError: there is no file, or it is no whole image, or too large.
        BundleError: ``preprocessing`` is damaged.
    """
    spec = ImageSpec.from_mapping(preprocessing)
    image = _open(source, spec.color)
    pixels_hwC = _crop(_resize(image, spec, source), spec.crop_size)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    x_hwC = (pixels_hwC.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(x_hwC.transpose(2, 0, 1)[np.newaxis])


@dataclass(frozen=True)
class ImageSpec:
    """How images become a network's input: a manifest's ``preprocessing``, checked."""

    color: str
    resize_size: int | None
    crop_size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_mapping(cls, preprocessing: Mapping[str, Any]) -> ImageSpec:
        """Read it.

        Raises:
            BundleError: a field is missing or has a value that makes no sense.
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
            num_channels = _NUM_CHANNELS[spec.color]
            is_sound = (
                spec.interpolation in _FILTERS
                and all(n >= 1 for n in (height, width, size if size is not None else 1))
                and len(spec.mean) == len(spec.std) == num_channels
                and all(np.isfinite(spec.mean))
                and all(np.isfinite(spec.std))
                and all(value >= 1e-6 for value in spec.std)  # pixels are a 255th apart
            )
        except (KeyError, TypeError, ValueError):
            is_sound = False
        if not is_sound:
            raise BundleError(
                f"The bundle's preprocessing is {str(dict(preprocessing))[:200]}, expected color, "
                "resize_size, crop_size, interpolation, mean and std. Export the bundle again."
            )
        return spec


def describe_source(source: ImageSource) -> str:
    """What messages call an image: its path, or what it was given as."""
    if isinstance(source, bytes):
        return f"The image of {len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"The image {source.dtype} {list(source.shape)}"
    return str(source)


def _open(source: ImageSource, color: str) -> Image.Image:
    """The image in ``color``, upright and fully decoded."""
    name = describe_source(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or 0 in source.shape:
            raise ImageError(f"{name}: expected uint8 [H, W, C]. Give decoded 8-bit pixels.")
        if source.shape[2] != _NUM_CHANNELS[color]:
            raise ImageError(
                f"{name}: expected {_NUM_CHANNELS[color]} channels ({color}). Convert it first."
            )
        return Image.fromarray(source if color == "RGB" else source[:, :, 0])
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            # Others tell of odd metadata; the pixels are sound or an error is raised.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return _convert(ImageOps.exif_transpose(image), color)
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist. Give the path of an image file.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels. Make it smaller first."
        ) from None
    except MemoryError:
        raise ImageError(f"{name} does not fit in memory. Make it smaller first.") from None
    # Decoders of damaged files raise nearly everything: OSError, SyntaxError, struct.error, …
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif isinstance(error, UnidentifiedImageError):
            reason = "of no known format"
        else:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(
            f"{name} cannot be read as an image: {reason}. "
            "Give a whole JPEG, PNG, WebP, GIF, BMP or TIFF file."
        ) from None


def _convert(image: Image.Image, color: str) -> Image.Image:
    if image.mode in _WIDE_MODES:
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError(f"grey levels {levels.min()} to {levels.max()}, expected 16 bits")
        # 65535 / 255 = 257; Pillow's own conversion clips at 255.
        image = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point grey levels, which have no known range")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(color)


def _resize(image: Image.Image, spec: ImageSpec, source: ImageSource) -> Image.Image:
    """Rows first, then columns.

    In one call, Pillow 13 takes the columns of some tall images first, which changes 7 to 14 % of
    a photo's pixels by one level. Pillow up to 12 never does, nor does a graph with included
    preprocessing.
    """
    if spec.resize_size is None:
        height, width = spec.crop_size
    else:
        shorter = min(image.size)
        width = spec.resize_size * image.width // shorter
        height = spec.resize_size * image.height // shorter
    largest = max(image.height, height) * width
    if Image.MAX_IMAGE_PIXELS is not None and largest > Image.MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{describe_source(source)} is {image.width} x {image.height} pixels, too long and "
            f"narrow to be resized to {width} x {height}. Cut out the part that matters."
        )
    resample = _FILTERS[spec.interpolation]
    return image.resize((width, image.height), resample).resize((width, height), resample)


def _crop(image: Image.Image, crop_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The middle of an image, uint8 [h, w, C], padded with 0 where the image is smaller.

    Source: torchvision, ``transforms/functional.py``, ``center_crop``.
    """
    pixels = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    for axis, size in enumerate(crop_size):
        excess = pixels.shape[axis] - size
        if excess >= 0:
            start = round(excess / 2)  # a half to the even number
            pixels = pixels.take(range(start, start + size), axis=axis)
        else:
            missing = -excess
            widths = [(0, 0)] * 3
            widths[axis] = (missing // 2, missing - missing // 2)
            pixels = np.pad(pixels, widths)
    return pixels
