"""The HTTP service: the protocol's routes, Triton's extensions, images, metrics, and pages."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dlzoo.runtime.protocol.refusal import INTERNAL, Reason, RefusalError
from dlzoo.runtime.serve.control import statistics_json
from dlzoo.runtime.serve.gate import App, Gate
from dlzoo.runtime.serve.http.classify_endpoint import Classifier
from dlzoo.runtime.serve.http.http_body import declared_length, read_body
from dlzoo.runtime.serve.http.http_infer import parse_json
from dlzoo.runtime.serve.http.infer_endpoint import InferEndpoint, InferPaths
from dlzoo.runtime.serve.http.openapi import MAX_CLASSES, openapi_document
from dlzoo.runtime.serve.http.pages import model_card, page_routes
from dlzoo.runtime.serve.metrics import metrics_text
from dlzoo.runtime.serve.models.model_config import model_config_json
from dlzoo.runtime.serve.models.served_model import ServedModel
from dlzoo.runtime.serve.served import Served

_logger = logging.getLogger("dlzoo.serve")
_MAX_MESSAGE = 1000


def json_response(
    document: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Build a JSON answer."""
    body = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return Response(body, status, headers, media_type="application/json")


def refusal_response(refusal: RefusalError) -> Response:
    """Build the answer to a refused request: the protocol's error object."""
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.reason is Reason.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return json_response(
        {"error": str(refusal)[:_MAX_MESSAGE]}, refusal.reason.http_status, headers
    )


class HttpService:
    """The routes of every request except inference, which has its own endpoint."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._classifier = Classifier(served)

    def app(self) -> App:
        """Build the ASGI application."""
        version = "/v2/models/{model}/versions/{version}"
        model = "/v2/models/{model}"
        infer = InferEndpoint(self._served)
        routes = [
            Route(f"{model}/infer", infer, methods=["POST"]),
            Route(f"{version}/infer", infer, methods=["POST"]),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2", self.server_metadata),
            Route("/v2/models/stats", self.statistics),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/v2/repository/models/{model}/load", self.load, methods=["POST"]),
            Route("/v2/repository/models/{model}/unload", self.unload, methods=["POST"]),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            *page_routes(self._served),
        ]
        for prefix in (model, version):
            routes += [
                Route(prefix, self.model_metadata),
                Route(f"{prefix}/ready", self.model_ready),
                Route(f"{prefix}/config", self.config),
                Route(f"{prefix}/stats", self.statistics),
                Route(f"{prefix}/card", self.card),
                Route(f"{prefix}/classify", self.classify, methods=["POST"]),
            ]
        handlers: dict[Any, Callable[[Any, Any], Response]] = {
            RefusalError: lambda _, refusal: refusal_response(refusal),
            HTTPException: _http_error,
            Exception: _internal_error,
        }
        others: App = Starlette(routes=routes, exception_handlers=handlers)
        paths = InferPaths(infer, others, refusal_response)
        return Gate(paths, served=self._served, refuse=refusal_response)

    def close(self) -> None:
        """Release the threads."""
        self._classifier.close()

    async def live(self, request: Request) -> Response:
        """Say that the process is alive."""
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        """Say whether the server accepts requests."""
        is_ready = self._served.is_ready
        return json_response({"ready": is_ready}, 200 if is_ready else 503)

    async def server_metadata(self, request: Request) -> Response:
        """Return the protocol's server metadata."""
        return json_response(self._served.metadata())

    async def model_metadata(self, request: Request) -> Response:
        """Return the protocol's model metadata."""
        model = self._model(request)
        return json_response(model.metadata(self._served.repository.versions_of(model.name)))

    async def model_ready(self, request: Request) -> Response:
        """Say whether a model accepts requests."""
        model = self._model(request)
        is_ready = self._served.is_ready
        return json_response({"name": model.name, "ready": is_ready}, 200 if is_ready else 503)

    async def config(self, request: Request) -> Response:
        """Return Triton's model configuration."""
        return json_response(model_config_json(self._model(request)))

    async def card(self, request: Request) -> Response:
        """Return the summary of a bundle, for the page."""
        return json_response(await asyncio.to_thread(model_card, self._model(request)))

    async def statistics(self, request: Request) -> Response:
        """Return Triton's statistics of one version, of a model, or of all models."""
        if "model" in request.path_params:
            self._model(request)
        names = request.path_params
        stats = statistics_json(
            await self._served.control.counts(),
            names.get("model", ""),
            names.get("version", ""),
        )
        return json_response({"model_stats": stats})

    async def index(self, request: Request) -> Response:
        """List the repository's models and versions."""
        document = await self._document(request)
        entries = [
            {"name": e.name, "version": e.version, "state": e.state, "reason": e.reason}
            for e in await self._served.control.index()
            if e.state == "READY" or document.get("ready") is not True
        ]
        return json_response(entries)

    async def load(self, request: Request) -> Response:
        """Load a model, or load it again."""
        self._served.check_may_change_models()
        document = await self._document(request)
        parameters = document.get("parameters") or {}
        if not isinstance(parameters, dict) or parameters:
            raise RefusalError(
                "load takes no parameters: a model is configured only by its bundle",
                Reason.UNSUPPORTED,
            )
        await self._served.control.load(request.path_params["model"])
        return Response()

    async def unload(self, request: Request) -> Response:
        """Stop accepting requests for a model."""
        self._served.check_may_change_models()
        await self._document(request)
        await self._served.control.unload(request.path_params["model"])
        return Response()

    async def classify(self, request: Request) -> Response:
        """Find the best classes of the image in the body."""
        text = request.query_params.get("k", "5")
        if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 6 and int(text) > 0):
            raise RefusalError(f"k is {text[:40]!r}, expected 1 to {MAX_CLASSES:,} classes")
        headers = dict(request.scope["headers"])
        with self._served.budget.hold(declared_length(headers, self._served.limits)):
            image = await read_body(request.receive, headers, self._served.limits)
            names = request.path_params
            return json_response(
                await self._classifier.classify(
                    names["model"], names.get("version", ""), image, int(text)
                )
            )

    async def metrics(self, request: Request) -> Response:
        """Return the metrics as Prometheus' text."""
        text = metrics_text(await self._served.control.counts())
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return json_response(openapi_document())

    def _model(self, request: Request) -> ServedModel:
        names = request.path_params
        return self._served.repository.get(names["model"], names.get("version", ""))

    async def _document(self, request: Request) -> dict[str, Any]:
        headers = dict(request.scope["headers"])
        body = await read_body(request.receive, headers, self._served.limits)
        document = parse_json(body) if body.strip() else {}
        if not isinstance(document, dict):
            raise RefusalError("the request is not a JSON object")
        return document


def _http_error(request: Request, error: HTTPException) -> Response:
    messages = {
        404: "no such address. See /docs",
        405: "this address does not support the method. See /docs",
    }
    text = messages.get(error.status_code, error.detail)
    return json_response({"error": text}, error.status_code, error.headers)


def _internal_error(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer, and the server logs it; clients do not see it.
    return refusal_response(INTERNAL)
