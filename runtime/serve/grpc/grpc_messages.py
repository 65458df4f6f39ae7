"""Pass unreadable messages to the service, which refuses them like any other bad request.

gRPC itself would answer with UNKNOWN and the name of a Python class, and log a stack trace for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

#: Passed to a call in place of an unreadable message.
DAMAGED = object()
_INFER_CALLS = ("ModelInfer", "ModelStreamInfer")


class ReceivedRequest:
    """A request for inference: its size in bytes, its id, and the message until it is taken.

    ``message.ByteSize()`` would serialize the whole message to count the bytes: 0.5 ms for an image.
    ``take`` hands over the only reference to the message, so that its memory is freed as soon as its
    tensors have been read, and not only when the call ends.
    """

    __slots__ = ("_message", "id", "num_bytes")

    def __init__(self, message: Any, num_bytes: int) -> None:
        self._message = message
        self.id: str = message.id
        self.num_bytes = num_bytes

    def take(self) -> Any:
        """Return the message; this works once."""
        message, self._message = self._message, None
        return message


def add_service(service: Any, server: Any) -> None:
    """Register a service of the protocol with a gRPC server, for unreadable messages too."""
    add_GRPCInferenceServiceServicer_to_server(service, _Registration(server))


class _Registration:
    """The part of a server that generated code calls to register its handlers."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._server.add_generic_rpc_handlers(tuple(_LenientHandler(h) for h in handlers))

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Ignore a second registration of the same handlers, which asyncio's server does not have."""


class _LenientHandler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._methods: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        """Find the handler of a method; None if the service lacks it."""
        method = handler_call_details.method
        if method not in self._methods:
            found = self._handler.service(handler_call_details)
            if found is None:
                return None
            read = found.request_deserializer
            if method.rpartition("/")[2] in _INFER_CALLS:
                read = _sized(read)
            read = _lenient(read)
            self._methods[method] = found._replace(request_deserializer=read)
        return self._methods[method]


def _sized(read: Callable[[bytes], Any]) -> Callable[[bytes], ReceivedRequest]:
    return lambda raw: ReceivedRequest(read(raw), len(raw))


def _lenient(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read_or_damaged(raw: bytes) -> Any:
        try:
            return read(raw)
        except DecodeError:
            return DAMAGED

    return read_or_damaged
