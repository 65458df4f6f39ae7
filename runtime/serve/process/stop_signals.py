"""Wait for SIGTERM and SIGINT on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any


class StopSignals:
    """Records the signals that end a server."""

    def __init__(self) -> None:
        """Begin to catch the signals, on the running event loop."""
        self._event = asyncio.Event()
        self._numbers: list[signal.Signals] = []
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._note, number)

    def _note(self, number: signal.Signals) -> None:
        self._numbers.append(number)
        self._event.set()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._event.wait()

    async def is_done_before(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run ``work``, and return whether it ended before a signal, which cancels it.

        Its errors are raised.
        """
        task = asyncio.ensure_future(work)
        signalled = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({task, signalled}, return_when="FIRST_COMPLETED")
        finally:
            signalled.cancel()
        if not task.done():
            task.cancel()
            return False
        task.result()
        return True

    async def delay(self, seconds: float) -> None:
        """Give load balancers, which check from time to time, time to see that the server ends.

        A second signal, or Ctrl-C, ends the delay at once.
        """
        if self._numbers == [signal.SIGTERM]:
            self._event.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), seconds)
