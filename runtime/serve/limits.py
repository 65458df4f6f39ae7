"""The limits on what clients may ask for: sizes, times, and memory in total."""

from __future__ import annotations

from dataclasses import dataclass

from dlzoo.runtime.protocol.refusal import Reason, RefusalError

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """The limits of one server.

    Attributes:
        request_bytes: of one request, uncompressed.
        json_bytes: of a request's JSON. Less than ``request_bytes``, because nothing else runs while
            a document is parsed (0.2 s for 8 MiB); binary tensors need no parsing.
        pending_bytes: of all requests that are being read or answered.
        timeout_s: for reading a request, and for answering it.
        image_pixels: of an image, as sent or resized.
        num_decoders: threads that decode images.
        decode_queue_size: images that wait or are being decoded.
    """

    request_bytes: int = 64 * _MIB
    json_bytes: int = 8 * _MIB
    pending_bytes: int = 512 * _MIB
    timeout_s: float = 30.0
    image_pixels: int = 50_000_000
    num_decoders: int = 2
    decode_queue_size: int = 32


class ByteBudget:
    """Bytes of requests in memory, over all clients; only the event loop's thread uses it."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._least_left = num_bytes
        self.num_left = num_bytes

    @property
    def is_idle(self) -> bool:
        """Whether no request is in memory."""
        return self.num_left == self._num_bytes

    def take_peak(self) -> int:
        """Return the most bytes that were held at once since the last call."""
        peak = self._num_bytes - self._least_left
        self._least_left = self.num_left
        return peak

    def take(self, num_bytes: int) -> None:
        """Count bytes of a request."""
        self.num_left -= num_bytes
        self._least_left = min(self._least_left, self.num_left)

    def hold(self, num_bytes: int) -> HeldBytes:
        """Count bytes while a ``with`` block runs.

        Raises:
            RefusalError: other requests hold too many.
        """
        if num_bytes > self.num_left:
            raise RefusalError(
                "the server's memory for requests is full. Try again later",
                Reason.BUSY,
                retry_after_s=1,
            )
        return HeldBytes(self, num_bytes)


class HeldBytes:
    """Bytes that are counted while a block runs; a class, because it is faster than a generator."""

    __slots__ = ("_budget", "_num_bytes")

    def __init__(self, budget: ByteBudget, num_bytes: int) -> None:
        self._budget = budget
        self._num_bytes = num_bytes

    def __enter__(self) -> None:
        self._budget.take(self._num_bytes)

    def __exit__(self, *_: object) -> None:
        self._budget.num_left += self._num_bytes


def too_large(what: str, got: int, limit: int) -> RefusalError:
    """Make the refusal of something that has too many bytes."""
    return RefusalError(
        f"{what} has {got:,} bytes or more, the limit is {limit:,}", Reason.TOO_LARGE
    )
