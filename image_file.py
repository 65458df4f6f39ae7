"""Image files and pixels as input of networks, with Pillow and NumPy only.

Training and serving both read images with this module, so both get the same pixels.

Shapes: H and W image height and width, C channels, h and w the network's height and width.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from dlzoo.errors import ImageError

#: An image: its file, the bytes of a file, or pixels, uint8 [H, W, C].
ImageSource = Path | str | bytes | npt.NDArray[np.uint8]
Color = Literal["RGB", "L"]

NUM_CHANNELS = {"RGB": 3, "L": 1}
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

#: Pillow's modes with whole numbers that may be wider than 8 bits.
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


class _HasGeometry(Protocol):
    @property
    def color(self) -> Color: ...
    @property
    def resize_size(self) -> int | None: ...
    @property
    def crop_size(self) -> tuple[int, int]: ...
    @property
    def interpolation(self) -> Literal["bilinear", "bicubic"]: ...


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How an image of any size becomes [h, w] pixels: by resizing the shorter side, and cropping.

    If ``resize_size`` is None, the image is squeezed to ``crop_size`` (height, width) directly.
    """

    color: Color
    resize_size: int | None
    crop_size: tuple[int, int]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @classmethod
    def of(cls, preprocessing: _HasGeometry) -> Geometry:
        """The geometry of an object that has one, such as a card's preprocessing."""
        return Geometry(
            color=preprocessing.color,
            resize_size=preprocessing.resize_size,
            crop_size=preprocessing.crop_size,
            interpolation=preprocessing.interpolation,
        )

    @property
    def num_channels(self) -> int:
        """3 for ``RGB``, 1 for ``L`` (grey levels)."""
        return NUM_CHANNELS[self.color]

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after resizing, before the crop."""
        if self.resize_size is None:
            return self.crop_size
        shorter = min(height, width)
        return self.resize_size * height // shorter, self.resize_size * width // shorter


def describe_source(source: ImageSource) -> str:
    """An image's name in messages: its path, or a description of the bytes or pixels."""
    if isinstance(source, bytes):
        return f"The image of {len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"The image {source.dtype} {list(source.shape)}"
    return str(source)


def open_image(source: ImageSource, color: Color, *, name: str | None = None) -> Image.Image:
    """An image in ``color``, upright and fully decoded, as a viewer shows it.

    It is rotated by its EXIF orientation; transparent parts become white; palettes, CMYK and 16-bit
    grey levels are converted; of several frames the first is used.

    Args:
        source: the image.
        color: ``RGB`` or ``L``.
        name: name of the image in messages; by default that of :func:`describe_source`.

    Raises:
        ImageError: there is no file, it is not a complete image, or it is too large.
    """
    name = name or describe_source(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or 0 in source.shape:
            raise ImageError(f"{name}: expected uint8 [H, W, C]. Give decoded 8-bit pixels.")
        if source.shape[2] != NUM_CHANNELS[color]:
            raise ImageError(
                f"{name}: expected {NUM_CHANNELS[color]} channels ({color}). Convert it first."
            )
        return Image.fromarray(source if color == "RGB" else source[:, :, 0])
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with decoder_warnings(), Image.open(file) as image:
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


@contextmanager
def decoder_warnings() -> Iterator[None]:
    """Turn Pillow's warnings of too many pixels into errors, and hide its other warnings.

    The others concern odd metadata; the pixels are correct or an error is raised. The filters affect
    the whole process: use this around threads that call :func:`open_image`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def resize_and_crop(
    image: Image.Image, geometry: Geometry, name: str
) -> npt.NDArray[np.uint8]:
    """The pixels that a network gets, uint8 [h, w, C].

    Args:
        image: an image in the geometry's color.
        geometry: the sizes.
        name: what messages call the image.

    Raises:
        ImageError: the image is so long and narrow that it would be huge when resized.
    """
    height, width = check_resizing(image, geometry, name)
    return center_crop(
        resize(image, height, width, geometry.interpolation), geometry.crop_size
    )


def check_resizing(image: Image.Image, geometry: Geometry, name: str) -> tuple[int, int]:
    """Height and width of the image after resizing.

    Raises:
        ImageError: the image is so long and narrow that it would be huge when resized.
    """
    height, width = geometry.resized_size(image.height, image.width)
    largest = max(image.height, height) * width
    if Image.MAX_IMAGE_PIXELS is not None and largest > Image.MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{name} is {image.width} x {image.height} pixels, too long and "
            f"narrow to be resized to {width} x {height}. Crop it first."
        )
    return height, width


def resize_window(
    image: Image.Image, window: tuple[int, int, int, int], geometry: Geometry
) -> npt.NDArray[np.uint8]:
    """A part of an image as the pixels that a network gets, uint8 [h, w, C].

    Args:
        image: an image in the geometry's color.
        window: top, left, height, width of the part, which must be within the image.
        geometry: the sizes; the part is resized to ``crop_size``, whatever its aspect ratio.
    """
    top, left, height, width = window
    assert 0 <= top < top + height <= image.height, window
    assert 0 <= left < left + width <= image.width, window
    part = image.crop((left, top, left + width, top + height))
    part = resize(part, *geometry.crop_size, geometry.interpolation)
    return np.asarray(part, dtype=np.uint8).reshape(*geometry.crop_size, -1)


def resize(image: Image.Image, height: int, width: int, interpolation: str) -> Image.Image:
    """Resize the rows first, then the columns.

    In a single call, Pillow 13 resizes the columns of some tall images first, which changes 7 to 14 %
    of a photo's pixels by one level. Pillow up to 12 never does, nor does a graph with included
    preprocessing.
    """
    resample = FILTERS[interpolation]
    return image.resize((width, image.height), resample).resize((width, height), resample)


def resize_many(
    images_NHWC: npt.NDArray[np.uint8], height: int, width: int, interpolation: str
) -> npt.NDArray[np.uint8]:
    """:func:`resize` of many images of one size, bit for bit, uint8 [N, height, width, C].

    A row's pixels depend only on that row, so all images are resized as one tall image; then,
    for the columns, as one wide image.
    """
    num_images, old_height, old_width, num_channels = images_NHWC.shape
    channels = (num_channels,) if num_channels > 1 else ()
    resample = FILTERS[interpolation]
    tall = Image.fromarray(images_NHWC.reshape(num_images * old_height, old_width, *channels))
    tall = tall.resize((width, tall.height), resample)
    pixels_NHwC = np.asarray(tall).reshape(num_images, old_height, width, num_channels)
    rows_HNwC = np.ascontiguousarray(pixels_NHwC.swapaxes(0, 1))
    wide = Image.fromarray(rows_HNwC.reshape(old_height, num_images * width, *channels))
    wide = wide.resize((wide.width, height), resample)
    pixels_hNwC = np.asarray(wide).reshape(height, num_images, width, num_channels)
    return np.ascontiguousarray(pixels_hNwC.swapaxes(0, 1))


def center_crop(image: Image.Image, crop_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The centre of an image, uint8 [h, w, C], padded with 0 where the image is smaller.

    Source: torchvision, ``transforms/functional.py``, ``center_crop``.
    """
    pixels = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, -1)
    return crop_or_pad(pixels, crop_size, axes=(0, 1))


def crop_or_pad(
    pixels: npt.NDArray[np.uint8], crop_size: tuple[int, int], *, axes: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """:func:`center_crop` of pixels, for one image or many; ``axes`` are those of H and W."""
    for axis, size in zip(axes, crop_size, strict=True):
        excess = pixels.shape[axis] - size
        if excess >= 0:
            start = round(excess / 2)  # halves to the even number
            pixels = pixels.take(range(start, start + size), axis=axis)
        else:
            missing = -excess
            widths = [(0, 0)] * pixels.ndim
            widths[axis] = (missing // 2, missing - missing // 2)
            pixels = np.pad(pixels, widths)
    return pixels


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
