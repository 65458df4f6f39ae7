"""The protocol over gRPC, with Triton's published messages; tensors travel as raw bytes.

Source: https://github.com/kserve/open-inference-protocol (gRPC), in tritonclient's Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy.typing as npt

from dlzoo.errors import InstallationError, ServerError
from dlzoo.runtime.remote.model import (
    API_KEY_VARIABLE,
    Arrays,
    RefusedError,
    RemoteFacts,
    RemoteTensor,
    ServerAddress,
    unreachable_server,
)
from dlzoo.runtime.remote.tensors import (
    answer_array,
    answer_array_from_json,
    datatype_of,
    wire_bytes,
)

#: gRPC's own bound of 4 MiB is less than one batch of images.
_MAX_BYTES = 2**31 - 1
#: The typed field that may hold an output instead of raw bytes.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class GrpcModel:
    """One model of a server that speaks gRPC."""

    protocol = "grpc"

    def __init__(self, address: ServerAddress, model: str) -> None:
        # The library's log on stderr would repeat the one-line errors that are raised here.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        try:
            import grpc
            from tritonclient.grpc import service_pb2, service_pb2_grpc
        except ImportError:
            raise InstallationError(
                "gRPC needs tritonclient and grpcio, which are not installed. "
                'Run: pip install "dlzoo[serve]"'
            ) from None
        self.url, self.model = address.url, model
        self._grpc, self._pb = grpc, service_pb2
        self._timeout_s = address.timeout_s
        key = address.api_key
        self._metadata = [("authorization", f"Bearer {key}")] if key else []
        options = [
            ("grpc.max_send_message_length", _MAX_BYTES),
            ("grpc.max_receive_message_length", _MAX_BYTES),
            # The environment's proxy is for the web, not for a server that the user names.
            ("grpc.enable_http_proxy", 0),
        ]
        host = f"[{address.host}]" if ":" in address.host else address.host
        target = f"{host}:{address.port}"
        self._channel = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
            if address.secure
            else grpc.insecure_channel(target, options)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def facts(self) -> RemoteFacts:
        """Ask for the metadata of the server and the model.

        Raises:
            ServerError: the server is unreachable, lacks the model, or speaks another protocol.
        """
        try:
            server = self._call(self._stub.ServerMetadata, self._pb.ServerMetadataRequest())
        except RefusedError as refused:
            raise self._not_the_protocol(f"ServerMetadata: {refused}") from None
        try:
            request = self._pb.ModelMetadataRequest(name=self.model)
            model = self._call(self._stub.ModelMetadata, request)
        except RefusedError as refused:
            self._refuse_model(refused)
        return RemoteFacts(
            server=f"{server.name or 'a server'} {server.version}".strip(),
            platform=model.platform,
            versions=tuple(model.versions),
            inputs=_tensors(model.inputs),
            outputs=_tensors(model.outputs),
        )

    def infer(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        """Run the model once on the server, for these outputs.

        Raises:
            RefusedError: the server refuses the request.
            ServerError: the server is unreachable, or its answer breaks the protocol.
        """
        request = self._pb.ModelInferRequest(model_name=self.model)
        for name, array in inputs.items():
            datatype = datatype_of(array)
            request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            request.raw_input_contents.append(wire_bytes(datatype, array))
        for name in outputs:
            request.outputs.add(name=name)
        answer = self._call(self._stub.ModelInfer, request)
        arrays: Arrays = {}
        try:
            for i, output in enumerate(answer.outputs):
                name, datatype, shape = output.name, output.datatype, tuple(output.shape)
                if answer.raw_output_contents:
                    if i >= len(answer.raw_output_contents):
                        raise ValueError(f"output {name!r} has no contents")
                    raw = answer.raw_output_contents[i]
                    arrays[name] = answer_array(name, datatype, shape, raw)
                else:
                    data = list(getattr(output.contents, _CONTENTS.get(datatype, ""), ()))
                    arrays[name] = answer_array_from_json(name, datatype, shape, data)
        except ValueError as error:
            raise self._not_the_protocol(f"the answer cannot be read: {error}") from None
        return arrays

    def classify(self, image: bytes) -> int | None:
        """Return None: the protocol has no gRPC call for image files."""
        return None

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        codes = self._grpc.StatusCode
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata)
        except self._grpc.RpcError as error:
            code = error.code()
            details = " ".join((error.details() or "no reason given").split())[:300].rstrip(
                "."
            )
            if code == codes.UNAVAILABLE:
                # Both gRPC's status for an unreachable server and a server's for a model not ready.
                if details.lower().startswith("failed to connect"):
                    raise unreachable_server(
                        self.url, details, certificates="GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
                    ) from None
                raise ServerError(
                    f"{self.url} is unavailable: {details}. Start the server, or correct `server`."
                ) from None
            if code == codes.DEADLINE_EXCEEDED:
                raise ServerError(
                    f"{self.url} did not answer within {self._timeout_s:g} s. "
                    "Look at the server's log, or raise `timeout_s`."
                ) from None
            if code in (codes.UNAUTHENTICATED, codes.PERMISSION_DENIED):
                raise ServerError(
                    f"{self.url} requires an API key: {details}. Set {API_KEY_VARIABLE}."
                ) from None
            raise RefusedError(
                f"the server refuses it with status {code.name}: {details}"
            ) from None

    def _not_the_protocol(self, what: str) -> ServerError:
        return ServerError(
            f"{self.url} does not speak the Open Inference Protocol: {what}. Correct `server`."
        )

    def _refuse_model(self, refused: RefusedError) -> NoReturn:
        try:
            index = self._call(self._stub.RepositoryIndex, self._pb.RepositoryIndexRequest())
            names = sorted({entry.name for entry in index.models})[:10]
        except RefusedError:
            names = []
        offer = f"It has {', '.join(names)}; g" if names else "G"
        raise ServerError(
            f"{self.url} has no model {self.model!r}: {refused}. {offer}ive `model`."
        ) from None


def _tensors(entries: Any) -> tuple[RemoteTensor, ...]:
    return tuple(
        RemoteTensor(name=entry.name, datatype=entry.datatype, shape=tuple(entry.shape))
        for entry in entries
    )
