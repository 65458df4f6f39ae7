"""A request's bytes and an answer's tensor, for each protocol; the same for every server.

Source: Open Inference Protocol; Triton's binary tensor data extension.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb

Array = npt.NDArray[np.float32]
PROTOCOLS = ("json", "binary", "grpc")
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"


def request_bytes(
    protocol: str, host: str, model: str, name: str, x: Array, output: str
) -> bytes:
    """Build a whole request: head and body of HTTP, or gRPC's message."""
    if protocol == "grpc":
        message = pb.ModelInferRequest(model_name=model)
        message.inputs.add(name=name, datatype="FP32", shape=x.shape)
        message.outputs.add(name=output)
        message.raw_input_contents.append(x.tobytes())
        return bytes(message.SerializeToString())
    tensor: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(x.shape)}
    wanted: dict[str, Any] = {"name": output}
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {host}\r\n"
    raw = b""
    if protocol == "binary":
        raw = x.tobytes()
        tensor["parameters"] = {"binary_data_size": len(raw)}
        wanted["parameters"] = {"binary_data": True}
        kind = "application/octet-stream"
    else:
        tensor["data"] = x.reshape(-1).tolist()
        kind = "application/json"
    document = {"inputs": [tensor], "outputs": [wanted]}
    text = json.dumps(document, separators=(",", ":")).encode()
    if raw:
        head += f"Inference-Header-Content-Length: {len(text)}\r\n"
    head += f"Content-Type: {kind}\r\nContent-Length: {len(text) + len(raw)}\r\n\r\n"
    return head.encode() + text + raw


def answered_array(protocol: str, head: bytes, body: bytes) -> Array:
    """Decode the first output of an answer.

    Raises:
        ValueError: it is none.
    """
    if protocol == "grpc":
        message = pb.ModelInferResponse.FromString(body)
        shape = list(message.outputs[0].shape)
        if message.raw_output_contents:
            return np.frombuffer(message.raw_output_contents[0], np.float32).reshape(shape)
        contents = message.outputs[0].contents.fp32_contents
        return np.array(contents, np.float32).reshape(shape)
    size = header(head, b"inference-header-content-length")
    document = json.loads(body if size is None else body[: int(size)])
    output = document["outputs"][0]
    if size is None:
        return np.array(output["data"], np.float32).reshape(output["shape"])
    num_bytes = output["parameters"]["binary_data_size"]
    raw = body[int(size) : int(size) + num_bytes]
    return np.frombuffer(raw, np.float32).reshape(output["shape"])


def header(head: bytes, name: bytes) -> bytes | None:
    """Find the value of a header; its name is in lower case."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None
