"""The refusal of a request: one error with an HTTP status and a gRPC code."""

from __future__ import annotations

import re
from enum import Enum


class Reason(Enum):
    """The kinds of refusal: an HTTP status and the name of a gRPC status code.

    Source: google.rpc.code.proto, which gives the HTTP mapping of each code.
    """

    INVALID = (400, "INVALID_ARGUMENT")
    UNAUTHENTICATED = (401, "UNAUTHENTICATED")
    FORBIDDEN = (403, "PERMISSION_DENIED")
    NOT_FOUND = (404, "NOT_FOUND")
    TOO_SLOW = (408, "DEADLINE_EXCEEDED")
    TOO_LARGE = (413, "RESOURCE_EXHAUSTED")
    BUSY = (429, "RESOURCE_EXHAUSTED")
    INTERNAL = (500, "INTERNAL")
    UNSUPPORTED = (501, "UNIMPLEMENTED")
    UNAVAILABLE = (503, "UNAVAILABLE")
    DEADLINE = (504, "DEADLINE_EXCEEDED")

    def __init__(self, http_status: int, grpc_code: str) -> None:
        self.http_status = http_status
        self.grpc_code = grpc_code


class RefusalError(Exception):
    """A request is refused; the message goes to the client, and contains no path of the server.

    The message is made one line: names chosen by a client may hold anything, and logs are read line
    by line. ``retry_after_s`` says when to try again, for requests refused under load.
    """

    def __init__(
        self,
        message: str,
        reason: Reason = Reason.INVALID,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message if message.isprintable() else _escaped(message))
        self.reason = reason
        self.retry_after_s = retry_after_s


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


#: The only answer that a client gets to an error of the server itself.
INTERNAL = RefusalError("internal error; the server's log says more", Reason.INTERNAL)


#: At least two folders deep, so that ``8/16``, ``application/json`` and ``/metrics`` are kept.
_ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:'\",;]+[/\\])+([^\s/\\:'\",;]*)"
)


def without_paths(text: str, *known: str) -> str:
    r"""Remove the folders of this machine from a message.

    Args:
        text: the message.
        known: folders to remove by name, whatever characters they hold.

    >>> without_paths("/srv/models/lenet/1: model.onnx was changed")
    '1: model.onnx was changed'
    >>> without_paths("/my models/lenet lacks model.onnx", "/my models")
    'lenet lacks model.onnx'
    """
    for folder in sorted(known, key=len, reverse=True):
        if folder not in ("", "/", "."):
            text = text.replace(f"{folder}/", "").replace(folder, "the model")
    return _ABSOLUTE_PATH.sub(lambda match: match[1] or "a folder", text)
