"""Tensors over HTTP at a real server: every dtype as JSON and as bytes, and what does not fit."""

import gzip
import json
import socket
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.http_requests import ONES, Array, as_json, infer, infer_binary
from tests.support.served_bundles import NUMERIC_DATATYPES, binary_request


def test_json_in_and_out(client: httpx.Client) -> None:
    answer = infer(client, id="42", inputs=[as_json(ONES * [[[[1]]], [[[3]]]])])
    assert answer.status_code == 200, answer.text
    document = answer.json()
    (output,) = document.pop("outputs")
    assert document == {"model_name": "mean", "model_version": "1", "id": "42"}
    assert output["shape"] == [2, 2] and output["datatype"] == "FP32"
    assert output["data"] == pytest.approx([1, -1, 3, -3])


def test_every_dtype_as_json_and_as_bytes(client: httpx.Client) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for datatype, dtype in NUMERIC_DATATYPES.items():
        kind = np.dtype(dtype).kind
        if kind == "b":
            arrays[datatype] = np.array([[True, False]])
        elif kind == "f":
            largest = np.finfo(dtype).max
            arrays[datatype] = np.array([[largest, rng.standard_normal()]], dtype)
        else:
            limits = np.iinfo(dtype)
            arrays[datatype] = np.array([[limits.min, limits.max]], dtype)
    named = {f"{t}_in": (t, array) for t, array in arrays.items()}
    answers = [
        infer(
            client,
            "every_dtype",
            inputs=[as_json(array, name, t) for name, (t, array) in named.items()],
        ),
        infer_binary(client, "every_dtype", named),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        outputs = {output["name"]: output for output in answer.json()["outputs"]}
        for datatype, array in arrays.items():
            output = outputs[f"{datatype}_out"]
            assert output["datatype"] == datatype and output["shape"] == [1, 2]
            assert np.array_equal(np.array(output["data"], array.dtype), array.reshape(-1))

    answer = infer_binary(
        client, "every_dtype", named, parameters={"binary_data_output": True}
    )
    size = int(answer.headers["inference-header-content-length"])
    place, head = size, json.loads(answer.content[:size])
    for output in head["outputs"]:
        array = arrays[output["datatype"]]
        num_bytes = output["parameters"]["binary_data_size"]
        assert answer.content[place : place + num_bytes] == array.tobytes()
        place += num_bytes
    assert place == len(answer.content)


def test_outputs_by_name_and_as_classes(client: httpx.Client) -> None:
    ask = {"inputs": [as_json(ONES)]}
    answer = infer(
        client, **ask, outputs=[{"name": "scores", "parameters": {"classification": 1}}]
    ).json()["outputs"]
    assert answer == [
        {
            "name": "scores",
            "datatype": "BYTES",
            "shape": [2, 1],
            "data": ["1.0:0:bright", "1.0:0:bright"],
        }
    ]
    refused = infer(client, **ask, outputs=[{"name": "logits"}])
    assert refused.status_code == 400 and "no output 'logits'" in refused.json()["error"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([as_json(ONES, "picture")], "got inputs picture, expected image"),
        ([as_json(ONES), as_json(ONES, "b")], "got inputs b, image, expected image"),
        ([as_json(ONES.astype(np.int32), datatype="INT32")], "datatype INT32, expected FP32"),
        ([as_json(ONES[0])], "shape [1, 8, 8], expected [batch, 1, 8, 8]"),
        ([as_json(np.ones((1, 1, 8, 9)))], "shape [1, 1, 8, 9], expected"),
        ([as_json(np.ones((9, 1, 8, 8)))], "axis 'batch' has size 9, expected 1 to 8"),
        ([as_json(np.ones((0, 1, 8, 8)))], "axis 'batch' has size 0, expected 1 to 8"),
        ([{**as_json(ONES), "shape": [-2, 1, 8, 8]}], "expected whole numbers from 0 up"),
        ([{**as_json(ONES), "shape": [2**62, 1, 8, 8]}], "2^63 elements"),
    ],
)
def test_requests_that_do_not_fit(
    client: httpx.Client, inputs: list[dict[str, Any]], message: str
) -> None:
    answer = infer(client, inputs=inputs)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"} and message in answer.json()["error"]


def test_numbers_that_are_none(client: httpx.Client) -> None:
    array = ONES.copy()
    array[0, 0, 0, 0] = np.nan
    answer = infer_binary(client, "mean", {"image": ("FP32", array)})
    assert answer.status_code == 400 and "Ask for binary data" in answer.json()["error"]
    binary = {"parameters": {"binary_data_output": True}}
    answer = infer_binary(client, "mean", {"image": ("FP32", array)}, **binary)
    size = int(answer.headers["inference-header-content-length"])
    scores = np.frombuffer(answer.content[size:], np.float32).reshape(2, 2)
    assert np.isnan(scores[0]).all() and scores[1] == pytest.approx([1, -1])


def test_large_requests_are_refused(client: httpx.Client) -> None:
    answer = client.post("/v2/models/mean/infer", content=b" " * 1_100_000)
    assert answer.status_code == 413 and "binary data" in answer.json()["error"]
    # More than a request may have: refused by its Content-Length, before its body is read.
    with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
        raw.sendall(
            b"POST /v2/models/mean/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
        )
        raw.settimeout(10)
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    parts = (b" " * 100_000 for _ in range(30))
    try:
        answer = client.post("/v2/models/mean/infer", content=parts)
    except httpx.TransportError:
        return  # the server has hung up while the rest was being sent
    assert answer.status_code == 413


def test_compressed_requests_and_answers(client: httpx.Client) -> None:
    text = json.dumps({"inputs": [as_json(np.ones((8, 1, 8, 8)))]}).encode()
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        answer = client.post(
            "/v2/models/mean/infer",
            content=pack(text),
            headers={"Content-Encoding": encoding, "Accept-Encoding": "identity"},
        )
        assert answer.status_code == 200 and "content-encoding" not in answer.headers
        document = client.get("/openapi.json", headers={"Accept-Encoding": encoding})
        assert document.json()["openapi"] == "3.1.0"
    bomb = client.post(
        "/v2/models/mean/infer",
        content=gzip.compress(b" " * 50_000_000),
        headers={"Content-Encoding": "gzip"},
    )
    assert bomb.status_code == 413


def test_long_answers_are_compressed_where_that_is_accepted(client: httpx.Client) -> None:
    inputs = {
        f"{t}_in": (t, np.zeros((8, 2), dtype)) for t, dtype in NUMERIC_DATATYPES.items()
    }
    plain, packed = (
        infer_binary_with(client, inputs, encoding) for encoding in ("identity", "gzip")
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])


def infer_binary_with(
    client: httpx.Client, inputs: dict[str, tuple[str, Array]], encoding: str
) -> httpx.Response:
    body, size = binary_request(inputs)
    headers = {"Inference-Header-Content-Length": str(size), "Accept-Encoding": encoding}
    return client.post("/v2/models/every_dtype/infer", content=body, headers=headers)
