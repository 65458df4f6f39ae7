"""A picture of the training images: a grid of samples with their labels.

Shape legend: N images, C channels, H and W height and width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlzoo.errors import ArgumentError, StorageError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

#: Sides of a tile, in pixels: small images are enlarged by a whole factor to at least the first,
#: large ones are reduced to the second.
_MIN_TILE, _MAX_TILE = 96, 192
_FONT_SIZE = 12
_LINE_HEIGHT = 15
_MARGIN = 8
#: Most labels shown for a mixture: Mosaic has four.
_MAX_LABELS = 4
_BACKGROUND, _INK = (255, 255, 255), (32, 32, 32)


def sample_grid(
    images_NCHW: Tensor,
    targets: Tensor,
    class_names: Sequence[str],
    *,
    num_columns: int = 8,
) -> Image.Image:
    """Draw images in a grid, each with its labels.

    Below an image is its class; for a mixture up to four classes, the largest share first, as
    ``0.63 cat``; for several labels, the names of those that apply.

    Args:
        images_NCHW: float32 from 0 to 1, before normalization; at least one, with 1 or 3 channels.
        targets: int64 [N], or float32 [N, K]: shares of classes, or 0 and 1.
        class_names: names of the K classes.
        num_columns: tiles per row.

    Raises:
        ArgumentError: values are outside of 0 to 1, which cannot be drawn.
    """
    from PIL import Image, ImageDraw, ImageFont

    low, high = (v.item() for v in images_NCHW.aminmax())
    if not (low >= 0 and high <= 1):
        raise ArgumentError(
            f"`images_NCHW` got values from {low:.4g} to {high:.4g}, expected 0 to 1. Give images "
            "before normalization."
        )
    font = ImageFont.load_default(_FONT_SIZE)
    labels = [label_lines(target, class_names) for target in targets]
    tiles = [_tile(image) for image in _pixels(images_NCHW)]
    tile_width, tile_height = tiles[0].size
    rows = [
        range(k, min(k + num_columns, len(tiles))) for k in range(0, len(tiles), num_columns)
    ]
    text_heights = [_LINE_HEIGHT * max(len(labels[k]) for k in row) for row in rows]
    grid = Image.new(
        "RGB",
        (
            len(rows[0]) * (tile_width + _MARGIN) + _MARGIN,
            len(rows) * (tile_height + _MARGIN) + sum(text_heights) + _MARGIN,
        ),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(grid)
    top = _MARGIN
    for row, text_height in zip(rows, text_heights, strict=True):
        for column, k in enumerate(row):
            left = _MARGIN + column * (tile_width + _MARGIN)
            grid.paste(tiles[k], (left, top))
            for number, line in enumerate(labels[k]):
                place = (left, top + tile_height + number * _LINE_HEIGHT)
                draw.text(place, _shortened(line, font, tile_width), fill=_INK, font=font)
        top += tile_height + text_height + _MARGIN
    return grid


def write_sample_grid(
    path: Path,
    images_NCHW: Tensor,
    targets: Tensor,
    class_names: Sequence[str],
    *,
    num_columns: int = 8,
) -> None:
    """Write :func:`sample_grid` as a PNG file; the same images give the same bytes.

    Raises:
        ArgumentError: the images cannot be drawn.
        StorageError: the file cannot be written.
    """
    grid = sample_grid(images_NCHW, targets, class_names, num_columns=num_columns)
    try:
        grid.save(path, "PNG")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. Choose another folder."
        ) from None


def label_lines(target: Tensor, class_names: Sequence[str]) -> list[str]:
    """The labels of one sample, one per line.

    >>> label_lines(torch.tensor(1), ["cat", "dog"])
    ['dog']
    >>> label_lines(torch.tensor([0.25, 0.75]), ["cat", "dog"])
    ['0.75 dog', '0.25 cat']
    """
    if target.dim() == 0:
        return [class_names[int(target)]]
    shares, classes = target.sort(descending=True, stable=True)
    shown = [
        (share, class_names[number])
        for share, number in zip(shares.tolist(), classes.tolist(), strict=True)
        if share > 0
    ]
    lines = [name if share == 1 else f"{share:.2f} {name}" for share, name in shown]
    return lines[:_MAX_LABELS] or ["no label"]


def _pixels(images_NCHW: Tensor) -> list[Tensor]:
    """The pixels of each image, uint8 [H, W, C]."""
    levels = (images_NCHW * 255).round().to(torch.uint8)
    return list(levels.permute(0, 2, 3, 1).contiguous().unbind(0))


def _tile(pixels_HWC: Tensor) -> Image.Image:
    from PIL import Image

    array = pixels_HWC.numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).convert("RGB")
    longer = max(image.size)
    if longer > _MAX_TILE:
        scale = _MAX_TILE / longer
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.BILINEAR)
    factor = max(1, math.ceil(_MIN_TILE / longer))
    # Pixels become whole squares, as the network sees them, without smoothing.
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


def _shortened(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    """The text, shortened to fit with an ellipsis if necessary."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
