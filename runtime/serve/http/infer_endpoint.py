"""``POST …/infer`` over HTTP, on a short path because every request passes here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dlzoo.runtime.protocol.refusal import INTERNAL, RefusalError
from dlzoo.runtime.serve.gate import App, Receive, Scope, Send
from dlzoo.runtime.serve.http.http_body import compressed, declared_length, read_body
from dlzoo.runtime.serve.http.http_infer import parse_request, response_body
from dlzoo.runtime.serve.models.infer_request import OutputTensor
from dlzoo.runtime.serve.models.served_model import ServedModel
from dlzoo.runtime.serve.served import Served

_logger = logging.getLogger("dlzoo.serve")
#: After this wait a request is watched: if its client disconnects, it leaves the queue. Watching
#: costs as much as a small request, so short requests are not watched.
_WATCH_AFTER_S = 0.02


class InferPaths:
    """Sends ``POST …/infer`` to its endpoint and everything else to ``others``.

    Starlette's middlewares and routes would take as long as the rest of a small request.
    """

    def __init__(
        self, endpoint: InferEndpoint, others: App, refuse: Callable[[RefusalError], App]
    ) -> None:
        self._endpoint = endpoint
        self._others = others
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        names = None
        # Below a prefix (root_path), leave it to the routes.
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and not scope.get("root_path")
        ):
            names = _names_in(scope["path"])
        if names is None:
            await self._others(scope, receive, send)
            return
        try:
            await self._endpoint.answer(*names, scope, receive, send)
        except RefusalError as refusal:
            await self._refuse(refusal)(scope, receive, send)
        except Exception:
            _logger.exception("a request failed")
            await self._refuse(INTERNAL)(scope, receive, send)


def _names_in(path: str) -> tuple[str, str] | None:
    """Read model and version (may be empty) from ``/v2/models/M[/versions/V]/infer``."""
    parts = path.split("/")
    if parts[:3] != ["", "v2", "models"] or parts[-1] != "infer" or not parts[3]:
        return None
    if len(parts) == 5:
        return parts[3], ""
    if len(parts) == 7 and parts[4] == "versions" and parts[5]:
        return parts[3], parts[5]
    return None


class InferEndpoint:
    """``POST …/infer`` as an ASGI application, which is faster than a route of Starlette."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that arrived by a route."""
        names = scope["path_params"]
        await self.answer(names["model"], names.get("version", ""), scope, receive, send)

    async def answer(
        self, model: str, version: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer one request.

        Raises:
            RefusalError: the request cannot be answered.
        """
        headers = dict(scope["headers"])
        limits = self._served.limits
        with self._served.budget.hold(declared_length(headers, limits)):
            body = await read_body(receive, headers, limits)
            request = parse_request(
                body, headers.get(b"inference-header-content-length"), limits
            )
            at_once = self._served.answers_at_once(model, version, request)
            work = self._served.infer(model, version, request)
            if at_once:
                answer = await work
            else:
                watched = await _unless_disconnected(work, receive)
                if watched is None:
                    return
                answer = watched
        await _send(*answer, request.id, headers.get(b"accept-encoding", b""), send)


async def _send(
    model: ServedModel,
    outputs: list[OutputTensor],
    request_id: str,
    accepted: bytes,
    send: Send,
) -> None:
    body, json_size = response_body(model.name, model.version, request_id, outputs)
    body, encoding = await compressed(body, accepted)
    kind = b"application/json" if json_size is None else b"application/octet-stream"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if json_size is not None:
        headers.append((b"inference-header-content-length", str(json_size).encode()))
    if encoding is not None:
        headers.append((b"content-encoding", encoding.encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _unless_disconnected(
    work: Awaitable[tuple[ServedModel, list[OutputTensor]]], receive: Receive
) -> tuple[ServedModel, list[OutputTensor]] | None:
    """Wait for an answer; if the client disconnects first, cancel the work and return None."""
    task = asyncio.current_task()
    assert task is not None
    watcher: asyncio.Task[None] | None = None
    has_gone = False

    async def watch() -> None:
        nonlocal has_gone
        while (await receive())["type"] != "http.disconnect":
            pass
        has_gone = True
        task.cancel()

    def start_watching() -> None:
        nonlocal watcher
        watcher = asyncio.get_running_loop().create_task(watch())

    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, start_watching)
    try:
        return await work
    except asyncio.CancelledError:
        if not has_gone:
            raise
        task.uncancel()
        return None
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
