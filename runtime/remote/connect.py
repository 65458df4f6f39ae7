"""Connect to a model on a running inference server by its URL."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import SplitResult, urlsplit

from dlzoo.errors import ArgumentError
from dlzoo.runtime.remote.http_model import HttpModel
from dlzoo.runtime.remote.model import API_KEY_VARIABLE, RemoteModel

#: What each scheme's servers listen on unless told otherwise.
_PORTS = {"http": 80, "https": 443, "grpc": 8001, "grpcs": 443}


def connect(url: str, model: str, *, timeout_s: float) -> RemoteModel:
    """A model of the server at ``url``: ``http[s]://HOST[:PORT]`` or ``grpc[s]://HOST[:PORT]``.

    Nothing is sent yet. A key in the environment variable ``DLZOO_API_KEY`` goes along as
    ``Authorization: Bearer KEY``.

    Raises:
        ArgumentError: the URL is none of these.
        InstallationError: tritonclient is not installed, which holds gRPC's messages.
    """
    parts = _split(url)
    assert parts.hostname
    key = os.environ.get(API_KEY_VARIABLE, "")
    if not key.isascii() or not key.isprintable():
        raise ArgumentError(f"{API_KEY_VARIABLE} holds characters that no header can carry.")
    where: dict[str, Any] = {
        "url": url.rstrip("/"),
        "model": model,
        "host": parts.hostname,
        "port": parts.port or _PORTS[parts.scheme],
        "secure": parts.scheme.endswith("s"),
        "timeout_s": timeout_s,
        "api_key": key,
    }
    if parts.scheme.startswith("grpc"):
        from dlzoo.runtime.remote.grpc_model import GrpcModel

        return GrpcModel(**where)
    return HttpModel(**where, prefix=parts.path.rstrip("/"))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
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
            f"--server is {url!r}, expected http://HOST:PORT, https://…, grpc://HOST:PORT or "
            "grpcs://…."
        )
    return parts
