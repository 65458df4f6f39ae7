"""``POST …/infer`` over HTTP: the way of every request, kept short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from starlette.responses import Response

from dlzoo.runtime.serve.gate import Receive, Scope, Send
from dlzoo.runtime.serve.http_body import compressed, declared_length, read_body
from dlzoo.runtime.serve.http_infer import parse_request, response_body
from dlzoo.runtime.serve.infer_request import OutputTensor
from dlzoo.runtime.serve.served import Served
from dlzoo.runtime.serve.served_model import ServedModel

#: A request that has waited this long is watched: if its client goes away, it leaves the queue.
#: Watching costs as much as a small request, so short ones are not.
_WATCH_AFTER_S = 0.02


class InferEndpoint:
    """``POST …/infer``: an ASGI application of its own, for every request passes here."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        with self._served.budget.hold(declared_length(headers, self._served.limits)):
            response = await self._answer(scope, headers, receive)
        if response is not None:
            await response(scope, receive, send)

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> Response | None:
        body = await read_body(receive, headers, self._served.limits)
        request = parse_request(
            body, headers.get(b"inference-header-content-length"), self._served.limits
        )
        names = scope["path_params"]
        answer = await _unless_disconnected(
            self._served.infer(names["model"], names.get("version", ""), request), receive
        )
        if answer is None:
            return None
        return await self._response(*answer, request.id, headers.get(b"accept-encoding", b""))

    @staticmethod
    async def _response(
        model: ServedModel, outputs: list[OutputTensor], request_id: str, accepted: bytes
    ) -> Response:
        body, json_size = response_body(model.name, model.version, request_id, outputs)
        body, encoding = await compressed(body, accepted)
        headers = {} if encoding is None else {"Content-Encoding": encoding}
        if json_size is None:
            return Response(body, headers=headers, media_type="application/json")
        headers["Inference-Header-Content-Length"] = str(json_size)
        return Response(body, headers=headers, media_type="application/octet-stream")


async def _unless_disconnected(
    work: Awaitable[tuple[ServedModel, list[OutputTensor]]], receive: Receive
) -> tuple[ServedModel, list[OutputTensor]] | None:
    """Wait for an answer; None, and the work is cancelled, if the client goes away first."""
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
