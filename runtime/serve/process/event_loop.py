"""The event loop that serves: uvloop's if it is installed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any


def run_until_complete(work: Coroutine[Any, Any, None]) -> None:
    """Run a server to its end, as ``asyncio.run`` does, on the main thread.

    A KeyboardInterrupt in uvloop's own first or last steps would leave a loop that can neither run
    nor be closed: Ctrl-C is held back until the work begins, or the loop is closed.
    """
    held: list[int] = []
    handler = signal.getsignal(signal.SIGINT)

    def hold_interrupts() -> None:
        if callable(handler):  # not if SIGINT is ignored
            signal.signal(signal.SIGINT, lambda number, frame: held.append(number))

    async def begin() -> None:
        signal.signal(signal.SIGINT, handler)
        if held:
            work.close()  # or Python warns that it was never awaited
            raise KeyboardInterrupt
        await work

    hold_interrupts()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            try:
                runner.run(begin())
            finally:
                hold_interrupts()
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ModuleNotFoundError:  # on Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop
