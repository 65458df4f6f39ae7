"""Connect to a model on a running inference server by its URL."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

from dlzoo.errors import ArgumentError
from dlzoo.runtime.remote.http_model import HttpModel
from dlzoo.runtime.remote.model import API_KEY_VARIABLE, RemoteModel, ServerAddress

#: The default port of each scheme.
_PORTS = {"http": 80, "https": 443, "grpc": 8001, "grpcs": 443}


def connect(server: str, model: str, *, timeout_s: float) -> RemoteModel:
    """Prepare a connection to a model on a server; nothing is sent yet.

    A key in the environment variable ``DLZOO_API_KEY`` is sent with every request as
    ``Authorization: Bearer KEY``.

    Args:
        server: ``http[s]://HOST[:PORT]`` or ``grpc[s]://HOST[:PORT]``.
        model: the model's name on the server.
        timeout_s: how long to wait for one answer.

    Raises:
        ArgumentError: the URL has another form, or the key cannot be sent.
        InstallationError: tritonclient is not installed, which holds gRPC's messages.
    """
    parts = _split(server)
    assert parts.hostname
    key = os.environ.get(API_KEY_VARIABLE, "")
    if not key.isascii() or not key.isprintable():
        raise ArgumentError(
            f"{API_KEY_VARIABLE} holds characters that a header cannot contain, expected printable "
            "ASCII."
        )
    address = ServerAddress(
        url=server.rstrip("/"),
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        secure=parts.scheme.endswith("s"),
        prefix=parts.path.rstrip("/"),
        timeout_s=timeout_s,
        api_key=key,
    )
    if parts.scheme.startswith("grpc"):
        from dlzoo.runtime.remote.grpc_model import GrpcModel

        return GrpcModel(address, model)
    return HttpModel(address, model)


def _split(server: str) -> SplitResult:
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_sound = (
        parts.scheme in _PORTS
        and parts.hostname
        and port != 0
        and not (parts.username or parts.query or parts.fragment)
        and not (parts.scheme.startswith("grpc") and parts.path.strip("/"))
    )
    if not is_sound:
        raise ArgumentError(
            f"`server` is {server!r}, expected http://HOST:PORT, https://…, grpc://HOST:PORT or "
            "grpcs://…."
        )
    return parts
