"""A small server of the Open Inference Protocol with injected faults.

``python -m tests.support.open_inference_server MODEL.onnx`` prints its ports as JSON. The model is offered as
``small``, and once more under every name of ``FAULTS``, each of which breaks one thing.
"""

import asyncio
import json
import socket
import sys
from typing import Any

import grpc
import numpy as np
import onnxruntime
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tritonclient.grpc import service_pb2, service_pb2_grpc

FAULTS = (
    *("wrong_weights", "nan", "wrong_dtype", "wrong_shape", "no_output", "refuses"),
    *("other_input", "other_dtype", "other_shape", "slow", "garbage", "swapped"),
)
DTYPES = {"FP32": np.float32, "FP64": np.float64, "BYTES": np.object_}


class Model:
    """An ONNX Runtime session, and the metadata that the server declares."""

    def __init__(self, path: str) -> None:
        self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def signature(self, name: str) -> dict[str, Any]:
        inputs = {"name": "image", "datatype": "FP32", "shape": [-1, 3, 8, 8]}
        if name == "other_input":
            inputs["name"] = "pixels"
        if name == "other_dtype":
            inputs["datatype"] = "UINT8"
        if name == "other_shape":
            inputs["shape"] = [-1, 8, 8, 3]
        if name == "takes_files":
            inputs = {"name": "image", "datatype": "BYTES", "shape": [-1, 1]}
        return {
            "name": name,
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [inputs],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 5]}],
        }

    def run(self, name: str, x: Any) -> dict[str, Any]:
        if name == "refuses":
            raise ValueError("the batch is larger than 1")
        (y,) = self._session.run(None, {"image": x})
        if name == "wrong_weights":
            y = y * np.float32(1.001)
        if name == "nan":
            y[0, 0] = np.nan
        if name == "wrong_dtype":
            y = y.astype(np.float64)
        if name == "wrong_shape":
            y = y.reshape(-1)
        if name == "swapped":  # the answer of another sample in the batch
            y = y[::-1]
        return {} if name == "no_output" else {"logits": y}


class Http:
    """The protocol over HTTP, with binary tensors or without."""

    def __init__(self, model: Model, *, binary: bool) -> None:
        self._model, self._binary = model, binary
        self.app = Starlette(
            routes=[
                Route("/v2", self._server),
                Route("/v2/repository/index", self._index, methods=["POST"]),
                Route("/v2/models/{name}", self._metadata),
                Route("/v2/models/{name}/infer", self._infer, methods=["POST"]),
                Route("/v2/models/{name}/classify", self._classify, methods=["POST"]),
            ]
        )

    async def _server(self, request: Request) -> Response:
        extensions = ["binary_tensor_data"] if self._binary else []
        return JSONResponse({"name": "tiny", "version": "1.0", "extensions": extensions})

    async def _index(self, request: Request) -> Response:
        return JSONResponse([{"name": "small", "version": "1", "state": "READY"}])

    async def _metadata(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != "small" and name not in FAULTS:
            return JSONResponse({"error": f"unknown model {name!r}"}, 404)
        return JSONResponse(self._model.signature(name))

    async def _classify(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name != "small":
            return JSONResponse({"error": "not here"}, 404)
        from dlzoo.runtime.images.preprocess import tensor_from_image
        from tests.support.small_bundle import PREPROCESSING

        y = self._model.run(name, tensor_from_image(await request.body(), PREPROCESSING))
        return JSONResponse({"classes": [{"index": int(np.argmax(y["logits"]))}]})

    async def _infer(self, request: Request) -> Response:
        name = request.path_params["name"]
        body = await request.body()
        if name == "slow":
            await asyncio.sleep(3)
        if name == "garbage":
            return Response(b"\x00\xff", media_type="application/octet-stream")
        length = int(request.headers.get("inference-header-content-length", len(body)))
        document, rest = json.loads(body[:length]), body[length:]
        (tensor,) = document["inputs"]
        dtype = DTYPES[tensor["datatype"]]
        if "parameters" in tensor:
            x = np.frombuffer(rest, dtype)
        else:
            x = np.array(tensor["data"], dtype)
        try:
            outputs = self._model.run(name, x.reshape(tensor["shape"]))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        entries, parts = [], []
        for key, y in outputs.items():
            datatype = next(n for n, dtype in DTYPES.items() if dtype == y.dtype)
            entry: dict[str, Any] = {"name": key, "datatype": datatype, "shape": list(y.shape)}
            if self._binary:
                parts.append(y.tobytes())
                entry["parameters"] = {"binary_data_size": len(parts[-1])}
            else:
                entry["data"] = y.reshape(-1).tolist()
            entries.append(entry)
        head = json.dumps({"model_name": name, "outputs": entries}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))} if self._binary else {}
        return Response(b"".join([head, *parts]), headers=headers)


class Grpc(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The protocol over gRPC; typed contents in place of raw ones for the model ``swapped``."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name="tiny", version="1.0")

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        entry = service_pb2.RepositoryIndexResponse.ModelIndex(name="small")
        return service_pb2.RepositoryIndexResponse(models=[entry])

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.name != "small" and request.name not in FAULTS:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.name!r}")
        return service_pb2.ModelMetadataResponse(**self._model.signature(request.name))

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        name = request.model_name
        if name == "slow":
            await asyncio.sleep(3)
        x = np.frombuffer(request.raw_input_contents[0], np.float32)
        try:
            outputs = self._model.run(name, x.reshape(tuple(request.inputs[0].shape)))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        answer = service_pb2.ModelInferResponse(model_name=name)
        for key, y in outputs.items():
            datatype = next(n for n, dtype in DTYPES.items() if dtype == y.dtype)
            added = answer.outputs.add(name=key, datatype=datatype, shape=y.shape)
            if name == "swapped":
                added.contents.fp32_contents.extend(y.reshape(-1).tolist())
            else:
                answer.raw_output_contents.append(b"\0" if name == "garbage" else y.tobytes())
        return answer


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.close()


def _listener() -> socket.socket:
    # asyncio sends small packets at once only if the protocol is given: otherwise 40 ms are lost.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


async def serve(path: str) -> None:
    """Serve until the process is ended."""
    model = Model(path)
    grpc_server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Grpc(model), grpc_server)
    ports = {"grpc": grpc_server.add_insecure_port("127.0.0.1:0")}
    await grpc_server.start()
    listeners = {name: _listener() for name in ("http", "json")}
    ports |= {name: listener.getsockname()[1] for name, listener in listeners.items()}
    rude = await asyncio.start_server(_hang_up, "127.0.0.1", 0)
    ports["hangs_up"] = rude.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await asyncio.gather(
        *(
            uvicorn.Server(
                uvicorn.Config(Http(model, binary=name == "http").app, log_level="error")
            ).serve(sockets=[listener])
            for name, listener in listeners.items()
        )
    )


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
