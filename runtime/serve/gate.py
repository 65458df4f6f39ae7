"""Checks before any route: the API key, and requests from pages of other sites."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.served import Served

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Needed by load balancers, which have no key, and by the page, which asks for one.
_OPEN_PATHS = frozenset(["/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"])


def check_key(served: Served, authorization: str | bytes | None) -> None:
    """Make sure that a request carries the API key, if the server has one: ``Bearer KEY``.

    Raises:
        RefusalError: the key is missing or wrong.
    """
    if served.api_key is None:
        return
    given = authorization or b""
    given = given.encode("utf-8", "replace") if isinstance(given, str) else given
    # Compared in constant time, or the key could be guessed byte by byte.
    if not hmac.compare_digest(given, f"Bearer {served.api_key}".encode()):
        served.num_unauthenticated += 1
        raise RefusalError(
            "the API key is missing or wrong. Send the header Authorization: Bearer KEY",
            Reason.UNAUTHENTICATED,
        )


class Gate:
    """Passes allowed requests on; ``refuse`` makes the answer to the others."""

    def __init__(
        self, app: App, *, served: Served, refuse: Callable[[RefusalError], App]
    ) -> None:
        self._app = app
        self._served = served
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except RefusalError as refusal:
                await self._refuse(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        authorization = origin = host = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
            elif name == b"origin":
                origin = value
            elif name == b"host":
                host = value
        if scope["path"] not in _OPEN_PATHS:
            check_key(self._served, authorization)
        # A browser sends the origin of the page that makes a request. Without this check, any site
        # open in it could use a server that listens only on this machine.
        is_foreign = origin is not None and _place_of(origin) != (host or b"").decode(
            "latin-1"
        )
        if is_foreign and scope["method"] != "GET":
            raise RefusalError(
                "requests from pages of other sites are refused", Reason.FORBIDDEN
            )


def _place_of(origin: bytes) -> str | None:
    """Read host and port from an Origin header; None if it is not a valid address."""
    try:
        return urlsplit(origin.decode("latin-1")).netloc
    except ValueError:  # a bracket that is not closed
        return None
