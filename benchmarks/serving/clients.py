"""Clients that take as little processor time as Python can: requests are ready bytes.

HTTP/1.1 is spoken over kept connections, one request at a time on each; gRPC through grpc.aio with
messages as bytes, 16 calls to a connection.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import grpc
from wire import GRPC_METHOD, header

_CALLS_PER_CHANNEL = 16
_TIMEOUT_S = 120


class Client(Protocol):
    """Sends one request at a time; returns an answer's head (HTTP) and body."""

    async def send(self, request: bytes) -> tuple[bytes, bytes]: ...


class HttpClient(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._received = bytearray()
        self._head = b""
        self._body_size = -1

    @classmethod
    async def open(cls, host: str, port: int) -> HttpClient:
        """Connect."""
        _, client = await asyncio.get_running_loop().create_connection(cls, host, port)
        return client

    async def send(self, request: bytes) -> tuple[bytes, bytes]:
        """Send one request and wait for its answer.

        Raises:
            RuntimeError: the answer's status is not 200, or there is none.
        """
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._body_size < 0:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._received[:end])
            del self._received[: end + 4]
            size = header(self._head, b"content-length")
            if size is None:
                self._fail(f"an answer without Content-Length: {self._head[:300]!r}")
                return
            self._body_size = int(size)
        if len(self._received) < self._body_size:
            return
        body = bytes(self._received)
        self._received.clear()
        self._body_size = -1
        if self._head.split(b" ", 2)[1] != b"200":
            self._fail(f"{self._head.splitlines()[0].decode()}: {body[:300]!r}")
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result((self._head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was closed: {exc}")

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(RuntimeError(reason))


class GrpcClient:
    """One client on a channel that others may also use."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.unary_unary(GRPC_METHOD)

    async def send(self, request: bytes) -> tuple[bytes, bytes]:
        """Send one request and wait for its answer."""
        return b"", await self._call(request, timeout=_TIMEOUT_S)


class Clients:
    """Opens clients of one server."""

    def __init__(self, protocol: str, host: str, port: int) -> None:
        self._protocol, self._host, self._port = protocol, host, port
        self._channels: list[Any] = []
        self._num_clients = 0

    async def open(self) -> Client:
        """Open one more client."""
        self._num_clients += 1
        if self._protocol != "grpc":
            return await HttpClient.open(self._host, self._port)
        if self._num_clients > _CALLS_PER_CHANNEL * len(self._channels):
            options = [
                # Otherwise all channels to one address would share a connection.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", -1),
            ]
            address = f"{self._host}:{self._port}"
            self._channels.append(grpc.aio.insecure_channel(address, options))
        return GrpcClient(self._channels[-1])

    async def close(self) -> None:
        """Close gRPC's connections; HTTP's end with the process."""
        for channel in self._channels:
            await channel.close()
