"""Ctrl-C that is never lost and never interrupts an import."""

from __future__ import annotations

import _thread
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_RETRY_S = 0.02
#: How long an import is not interrupted: that of torch takes seconds, a user's file may hang.
_IMPORT_S = 10.0


@contextmanager
def reliable_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt where it can be handled.

    1. Not inside an import: a half-imported module fails later in its own way, such as with a
       RecursionError in NumPy or an abort in pybind11. It is raised when the import has ended.
    2. Again, if it hit a destructor or a weak reference's callback: those cannot pass it on, and
       Python drops it.
    """
    handler, show = signal.getsignal(signal.SIGINT), sys.unraisablehook
    waiting_since_s: float | None = None

    def wait() -> None:
        nonlocal waiting_since_s
        waiting_since_s = waiting_since_s or time.monotonic()
        _thread.start_new_thread(interrupt_soon, ())

    def interrupt_soon() -> None:
        time.sleep(_RETRY_S)
        if waiting_since_s is not None:
            _thread.interrupt_main()

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal waiting_since_s
        is_early = waiting_since_s is None or time.monotonic() - waiting_since_s < _IMPORT_S
        if is_early and _is_importing(frame):  # rule 1
            wait()
        else:
            waiting_since_s = None
            signal.default_int_handler(number, frame)

    def show_unless_interrupt(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):  # rule 2
            wait()
        else:
            show(unraisable)

    # SIGINT stays ignored where it is, as it is for a shell's background jobs.
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = show_unless_interrupt
    try:
        yield
    finally:
        sys.unraisablehook = show
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, handler)
        is_interrupted, waiting_since_s = waiting_since_s is not None, None
        if is_interrupted:
            raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
