"""Return freed memory to the system, which the C library would otherwise keep."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def give_back_freed_memory() -> None:
    """Let glibc return freed memory to the system; with other C libraries nothing happens.

    Opening a model takes more than twice its file's size for a while: after ResNet-50's proof and
    two sessions, the process would keep 140 MB.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows
        return None
