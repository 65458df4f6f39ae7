"""Calls between two processes that trust each other: pickles with a length, over a socket pair."""

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
#: Called with the name and the arguments of a call from the other side.
Answer = Callable[..., Awaitable[Any]]


class ChannelClosedError(Exception):
    """Raised when the other process has ended."""


class Channel:
    """One end of a channel, which calls the other side and answers its calls, on one event loop."""

    def __init__(self, answer: Answer) -> None:
        """Prepare the end.

        Args:
            answer: called with the name and the arguments of each call from the other side.
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
            ChannelClosedError: the other process has ended, or ends before it answers.
            RefusalError, DlzooError: the error that the call raised there.
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
        """Close the channel; waiting calls raise :class:`ChannelClosedError`."""
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
            pass  # the other process has ended: the callers get that error below
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
    """Convert an error to one that can be pickled, and that the other side knows."""
    if isinstance(error, RefusalError):
        return RefusalError(str(error), error.reason, retry_after_s=error.retry_after_s)
    if isinstance(error, DlzooError):
        # Without its class, which may need more than a message, and its attributes, such as a report.
        plain = DlzooError(str(error))
        plain.exit_code = error.exit_code
        return plain
    if isinstance(error, ChannelClosedError):
        return RefusalError(
            "a process of this server has just ended. Try again", Reason.UNAVAILABLE
        )
    _logger.error("a call between processes failed: %s", describe_exception(error))
    return RefusalError("internal error; the server's log says more", Reason.INTERNAL)
