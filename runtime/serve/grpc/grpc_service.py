"""The protocol's gRPC service.

The messages and the base class of the service come from Triton's client package, which is complete,
maintained, and used by the clients themselves.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer

from dlzoo.runtime.protocol.refusal import INTERNAL, Reason, RefusalError
from dlzoo.runtime.serve.control import statistics_json
from dlzoo.runtime.serve.gate import check_key
from dlzoo.runtime.serve.grpc.grpc_messages import DAMAGED, ReceivedRequest
from dlzoo.runtime.serve.grpc.grpc_tensors import infer_request, infer_response
from dlzoo.runtime.serve.models.infer_request import OutputTensor
from dlzoo.runtime.serve.models.model_config import model_config
from dlzoo.runtime.serve.models.served_model import ServedModel
from dlzoo.runtime.serve.served import Served

_logger = logging.getLogger("dlzoo.serve")
_OPEN_CALLS = ("ServerLive", "ServerReady")
_UNSUPPORTED = (
    *(
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
    ),
    *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    *("TraceSetting", "LogSettings"),
)


async def _abort(context: Any, refusal: RefusalError) -> None:
    metadata: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after_s is not None:
        metadata = (("retry-after", str(refusal.retry_after_s)),)
    code = getattr(grpc.StatusCode, refusal.reason.grpc_code)
    await context.abort(code, str(refusal)[:1000], metadata)


def _deadline_s(context: Any) -> float | None:
    left: float | None = context.time_remaining()
    return left


class InferenceService(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The calls of ``inference.GRPCInferenceService``."""

    def __init__(self, served: Served) -> None:
        self._served = served
        for name in vars(GRPCInferenceServiceServicer):
            if name[0].isupper() and name != "ModelStreamInfer":
                answer = getattr(self, _method_name(name), None)
                if name in _UNSUPPORTED:
                    answer = _refuse_unsupported
                assert answer is not None, name
                setattr(self, name, self._guarded(answer, is_open=name in _OPEN_CALLS))

    def _guarded(
        self, answer: Callable[[Any, Any], Awaitable[Any]], *, is_open: bool
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        """Wrap a call: check the key first, and turn refusals into gRPC statuses."""

        async def call(request: Any, context: Any) -> Any:
            try:
                if not is_open:
                    self._check_key(context)
                if request is DAMAGED:
                    raise RefusalError(_NO_MESSAGE)
                return await answer(request, context)
            except RefusalError as refusal:
                await _abort(context, refusal)
            except Exception:
                _logger.exception("a gRPC call failed")
                await _abort(context, INTERNAL)

        return call

    def _check_key(self, context: Any) -> None:
        if self._served.api_key is not None:
            metadata = dict(context.invocation_metadata())
            check_key(self._served, metadata.get("authorization"))

    async def _server_live(self, request: Any, context: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=self._served.is_ready)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        try:
            self._served.repository.get(request.name, request.version)
        except RefusalError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self._served.is_ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        return pb.ServerMetadataResponse(**self._served.metadata())

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        model = self._served.repository.get(request.name, request.version)
        document = model.metadata(self._served.repository.versions_of(model.name))
        return ParseDict(document, pb.ModelMetadataResponse())

    async def _model_config(self, request: Any, context: Any) -> Any:
        model = self._served.repository.get(request.name, request.version)
        return pb.ModelConfigResponse(config=model_config(model))

    async def _model_statistics(self, request: Any, context: Any) -> Any:
        if request.name:
            self._served.repository.get(request.name, request.version)
        counts = await self._served.control.counts()
        stats = statistics_json(counts, request.name, request.version)
        return ParseDict({"model_stats": stats}, pb.ModelStatisticsResponse())

    async def _repository_index(self, request: Any, context: Any) -> Any:
        response = pb.RepositoryIndexResponse()
        for e in await self._served.control.index():
            if e.state == "READY" or not request.ready:
                response.models.add(
                    name=e.name, version=e.version, state=e.state, reason=e.reason
                )
        return response

    async def _repository_model_load(self, request: Any, context: Any) -> Any:
        self._served.check_may_change_models()
        if request.parameters:
            raise RefusalError(
                "load takes no parameters: a model is configured only by its bundle",
                Reason.UNSUPPORTED,
            )
        await self._served.control.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def _repository_model_unload(self, request: Any, context: Any) -> Any:
        self._served.check_may_change_models()
        await self._served.control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def _model_infer(self, request: Any, context: Any) -> Any:
        if not isinstance(request, ReceivedRequest):
            # Another gRPC server, such as Ray Serve, has parsed the message.
            request = ReceivedRequest(request, request.ByteSize())
        with self._served.budget.hold(request.num_bytes):
            model, outputs = await self._infer(request.take(), context)
            return infer_response(model.name, model.version, request.id, outputs)

    def _infer(
        self, message: Any, context: Any
    ) -> Awaitable[tuple[ServedModel, list[OutputTensor]]]:
        # Not a coroutine, because its frame would hold the message while the request waits.
        return self._served.infer(
            message.model_name,
            message.model_version,
            infer_request(message),
            _deadline_s(context),
        )

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        """Answer requests one after the other; a refusal of one does not end the stream."""
        try:
            self._check_key(context)
        except RefusalError as refusal:
            await _abort(context, refusal)
        async for request in requests:
            if request is DAMAGED:
                await _abort(context, RefusalError(_NO_MESSAGE))
            try:
                answer = await self._model_infer(request, context)
                yield pb.ModelStreamInferResponse(infer_response=answer)
            except RefusalError as refusal:
                yield _stream_error(request.id, str(refusal)[:1000])
            except Exception:
                _logger.exception("a gRPC call failed")
                yield _stream_error(request.id, str(INTERNAL))


def _method_name(call: str) -> str:
    """``ServerLive`` -> ``_server_live``."""
    return re.sub(r"([A-Z])", r"_\1", call).lower()


_NO_MESSAGE = "the request's bytes are not the message that this call expects"


def _stream_error(request_id: str, message: str) -> Any:
    # The id tells the client which of its requests failed.
    return pb.ModelStreamInferResponse(
        error_message=message, infer_response=pb.ModelInferResponse(id=request_id)
    )


async def _refuse_unsupported(request: Any, context: Any) -> Any:
    raise RefusalError("this server does not support this call", Reason.UNSUPPORTED)
