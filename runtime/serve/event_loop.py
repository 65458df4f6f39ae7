"""The event loop that serves: uvloop's where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run_until_complete(work: Coroutine[Any, Any, None]) -> None:
    """Run a server to its end, as ``asyncio.run`` does."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ModuleNotFoundError:  # on Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop
