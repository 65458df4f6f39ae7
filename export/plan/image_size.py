"""The image size of an export: one size, or which sizes stay open."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dlzoo.errors import ArgumentError

_SIZE = re.compile(r"(\d+)[,x](\d+)")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class SizeRange:
    """Heights and widths from ``low`` to ``high`` pixels, both included; None is unbounded."""

    low: int = 1
    high: int | None = None

    def __str__(self) -> str:
        return "dynamic" if self.high is None else f"{self.low}..{self.high}"

    def nearest(self, size: int) -> int:
        """The size of the range that is nearest to ``size``."""
        return min(max(size, self.low), size if self.high is None else self.high)


#: (height, width), a range of both, every size, or the model's own.
ImageSize = tuple[int, int] | SizeRange | None

DYNAMIC = SizeRange()


def parse_image_size(text: str | None) -> ImageSize:
    """Read ``H,W``, ``LOW..HIGH`` or ``dynamic``.

    >>> parse_image_size("256x320"), parse_image_size("224..512")
    ((256, 320), SizeRange(low=224, high=512))

    Raises:
        ArgumentError: it is none of them.
    """
    if text is None:
        return None
    if text == "dynamic":
        return DYNAMIC
    size, size_range = _SIZE.fullmatch(text), _RANGE.fullmatch(text)
    if size and int(size[1]) and int(size[2]):
        return int(size[1]), int(size[2])
    if size_range and 0 < int(size_range[1]) < int(size_range[2]):
        return SizeRange(low=int(size_range[1]), high=int(size_range[2]))
    raise ArgumentError(
        f"`image_size` got {text!r}, expected height,width in pixels, LOW..HIGH, or 'dynamic'. "
        'Write for example `image_size="256,320"` or `image_size="224..512"`.'
    )
