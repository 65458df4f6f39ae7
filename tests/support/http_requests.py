"""Requests for inference over HTTP, as JSON and with binary tensors."""

from typing import Any

import httpx
import numpy as np

from tests.support.served_bundles import binary_request

Array = np.ndarray[Any, Any]
ONES = np.ones((2, 1, 8, 8), np.float32)


def as_json(array: Array, name: str = "image", datatype: str = "FP32") -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype,
        "data": array.reshape(-1).tolist(),
    }


def infer(client: httpx.Client, model: str = "mean", **document: Any) -> httpx.Response:
    return client.post(f"/v2/models/{model}/infer", json=document)


def infer_binary(
    client: httpx.Client, model: str, inputs: dict[str, tuple[str, Array]], **document: Any
) -> httpx.Response:
    body, size = binary_request(inputs, **document)
    headers = {"Inference-Header-Content-Length": str(size)}
    return client.post(f"/v2/models/{model}/infer", content=body, headers=headers)
