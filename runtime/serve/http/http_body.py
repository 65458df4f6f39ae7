"""Bodies of HTTP requests and answers: read within limits, compressed if the client accepts it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.limits import ServerLimits, too_large

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
#: zlib's window bits: a gzip header, a zlib header.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
#: Below this, a compressed answer is hardly smaller.
_COMPRESS_FROM_BYTES = 1024
#: Above this, compressing takes longer than the hop to a thread.
_IN_THREAD_FROM_BYTES = 64 * 1024


def declared_length(headers: dict[bytes, bytes], limits: ServerLimits) -> int:
    """Bound the bytes that a body takes in memory, from its headers.

    Raises:
        RefusalError: the body is larger than a request may be.
    """
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or b"content-encoding" in headers:
        return limits.request_bytes
    if len(length) > 18 or int(length) > limits.request_bytes:
        raise too_large("the request", limits.request_bytes + 1, limits.request_bytes)
    return int(length)


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], limits: ServerLimits
) -> bytes:
    """Read a request's whole body, and decompress it.

    Raises:
        RefusalError: it is too large, takes too long, is incomplete, or does not fit its encoding.
    """
    try:
        async with asyncio.timeout(limits.timeout_s):
            body = await _read_parts(receive, limits)
    except TimeoutError:
        raise RefusalError(
            f"the request did not arrive within {limits.timeout_s:g} s", Reason.TOO_SLOW
        ) from None
    encoding = headers.get(b"content-encoding")
    if encoding is None or encoding == b"identity":
        return body
    return await asyncio.to_thread(
        decompressed, body, encoding.decode("latin-1").strip().lower(), limits.request_bytes
    )


async def _read_parts(receive: Receive, limits: ServerLimits) -> bytes:
    parts: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusalError("the client disconnected")
        part: bytes = message.get("body", b"")
        num_bytes += len(part)
        if num_bytes > limits.request_bytes:
            raise too_large("the request", num_bytes, limits.request_bytes)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts) if len(parts) > 1 else part


def decompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decompress a body of gzip or deflate.

    Raises:
        RefusalError: the encoding is unknown, or the body is damaged or larger than ``max_bytes``.
    """
    if encoding not in _WINDOW_BITS:
        raise RefusalError(
            f"Content-Encoding is {encoding[:40]!r}, expected gzip, deflate or identity"
        )
    decompressor = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error:
        raise RefusalError(f"the body is not {encoding}, as Content-Encoding says") from None
    if len(plain) > max_bytes:
        raise too_large("the uncompressed request", len(plain), max_bytes)
    if not decompressor.eof or decompressor.unused_data:
        raise RefusalError(f"the {encoding} body is incomplete, or other bytes follow it")
    return plain


async def compressed(body: bytes, accepted: bytes) -> tuple[bytes, str | None]:
    """Compress an answer if the client accepts it, preferably with gzip; return it and the encoding."""
    if len(body) < _COMPRESS_FROM_BYTES or not accepted:
        return body, None
    offers = {}
    for part in accepted.decode("latin-1").lower().split(","):
        name, _, quality = part.partition(";")
        offers[name.strip()] = quality.replace(" ", "") not in (
            "q=0",
            "q=0.0",
            "q=0.00",
            "q=0.000",
        )
    encoding = next((name for name in ("gzip", "deflate") if offers.get(name)), None)
    if encoding is None:
        return body, None
    if len(body) < _IN_THREAD_FROM_BYTES:
        return _compress(body, encoding), encoding
    return await asyncio.to_thread(_compress, body, encoding), encoding


def _compress(body: bytes, encoding: str) -> bytes:
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return compressor.compress(body) + compressor.flush()
