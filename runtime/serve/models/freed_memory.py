"""Memory that was freed goes back to the system, where the C library keeps it otherwise."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def give_back_freed_memory() -> None:
    """Let glibc return what was freed; elsewhere nothing happens.

    Opening a model takes its file's size twice and more for a while: of ResNet-50's proof and two
    sessions 140 MB stay with the process.
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
