"""Calls between two processes that trust each other, over a socket pair: pickles with a length."""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from dlzoo.errors import DlzooError, describe_exception
from dlzoo.runtime.protocol.refusal import Reason, RefusalError

_logger = logging.getLogger("dlzoo.serve")
_LENGTH = struct.Struct("!I")
#: Answers a call of the other side: its name and arguments.
Answer = Callable[..., Awaitable[Any]]


class ChannelClosedError(Exception):
    """The other process has ended."""


class Channel:
    """One end: it calls, and answers calls, on one event loop."""

    def __init__(self, answer: Answer) -> None:
        """Prepare it.

        Args:
            answer: is called with the name and the arguments of each call that comes.
        """
        self._answer = answer
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()

    async def open(self, end: socket.socket) -> None:
        """Begin to read."""
        reader, self._writer = await asyncio.open_connection(sock=end)
        self._reading = asyncio.create_task(self._read(reader))

    async def call(self, name: str, *arguments: Any) -> Any:
        """Call the other side.

        Raises:
            ChannelClosedError: it has ended, or ends before it answers.
            RefusalError, DlzooError: what the call raised there.
        """
        if self.closed.is_set():
            raise ChannelClosedError
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(("call", number, (name, *arguments)))
            return await self._waiting[number]
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """End it; calls that wait raise :class:`ChannelClosedError`."""
        if self._writer is not None:
            self._writer.close()

    def _send(self, message: Any) -> None:
        assert self._writer is not None
        text = pickle.dumps(message)
        self._writer.write(_LENGTH.pack(len(text)) + text)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                kind, number, value = pickle.loads(await reader.readexactly(size))
                if kind == "call":
                    task = asyncio.create_task(self._reply(number, *value))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                elif number in self._waiting and not self._waiting[number].done():
                    if kind == "error":
                        self._waiting[number].set_exception(value)
                    else:
                        self._waiting[number].set_result(value)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other process has ended, which its callers are told below
        finally:
            self.closed.set()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ChannelClosedError())
            self.close()

    async def _reply(self, number: int, *call: Any) -> None:
        try:
            message = ("answer", number, await self._answer(*call))
        except Exception as error:
            message = ("error", number, _to_send(error))
        if not self.closed.is_set():
            self._send(message)


def _to_send(error: Exception) -> Exception:
    """An error that can be pickled, and that the other side knows."""
    if isinstance(error, RefusalError):
        return RefusalError(str(error), error.reason, retry_after_s=error.retry_after_s)
    if isinstance(error, DlzooError):
        # Without its class, which may want more than a message, and what hangs on it, such as a report.
        told = DlzooError(str(error))
        told.exit_code = error.exit_code
        return told
    if isinstance(error, ChannelClosedError):
        return RefusalError(
            "a process of this server has just ended; ask again", Reason.UNAVAILABLE
        )
    _logger.error("a call between processes failed: %s", describe_exception(error))
    return RefusalError("internal error; the server's log says more", Reason.INTERNAL)
