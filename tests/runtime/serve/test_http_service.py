"""A real server over HTTP: the protocol's routes and errors, every dtype, images."""

import gzip
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from served_bundles import NUMERIC_DATATYPES, binary_request
from serving_process import ServingProcess

Array = np.ndarray[Any, Any]
ONES = np.ones((2, 1, 8, 8), np.float32)


@pytest.fixture(scope="module")
def client(server: ServingProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http, timeout=30) as client:
        yield client


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


def test_health_and_metadata(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    metadata = client.get("/v2").json()
    assert metadata["name"] == "dlzoo" and "binary_tensor_data" in metadata["extensions"]
    model = client.get("/v2/models/mean").json()
    assert model["versions"] == ["1"] and model["platform"] == "onnxruntime_onnx"
    assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert client.get("/v2/models/mean/versions/1/ready").json() == {
        "name": "mean",
        "ready": True,
    }


def test_the_configuration_is_tritons(client: httpx.Client) -> None:
    config = client.get("/v2/models/mean/config").json()
    assert config["max_batch_size"] == 8
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP32", "dims": [1, 8, 8]}]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 0


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


def test_what_is_not_there(client: httpx.Client) -> None:
    for address, message in (
        ("/v2/models/nobody", "model 'nobody' is unknown"),
        ("/v2/models/mean/versions/2", "no version '2' loaded"),
        ("/v2/models/mean/versions/%2e%2e", "no version '..'"),
        ("/v3", "no such address"),
    ):
        answer = client.get(address)
        assert answer.status_code == 404 and message in answer.json()["error"]
    answer = client.get("/v2/models/mean/infer")
    assert answer.status_code == 405 and "another method" in answer.json()["error"]


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


def test_the_deadline_of_a_request(client: httpx.Client) -> None:
    threads = [threading.Thread(target=infer, args=(client, "slow"), kwargs={"inputs": [as_json(ONES)]}) for _ in range(2)]  # fmt: skip
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    answer = infer(client, "slow", inputs=[as_json(ONES)], parameters={"timeout": 1000})
    assert answer.status_code == 504 and "deadline" in answer.json()["error"]
    for thread in threads:
        thread.join()


def test_a_client_that_hangs_up_leaves_the_queue(client: httpx.Client) -> None:
    def cancelled() -> float:
        for line in client.get("/metrics").text.splitlines():
            if (
                line.startswith("dlzoo_requests_total")
                and "cancelled" in line
                and "slow" in line
            ):
                return float(line.split()[-1])
        raise AssertionError("no such metric")

    before = cancelled()
    body = json.dumps({"inputs": [as_json(np.ones((8, 1, 8, 8)))]}).encode()
    head = f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    raws = [
        socket.create_connection((client.base_url.host, client.base_url.port))
        for _ in range(3)
    ]
    for raw in raws:
        raw.sendall(head.encode() + body)
    time.sleep(0.1)
    for raw in raws:
        raw.close()
    for _ in range(200):
        if cancelled() > before:
            break
        time.sleep(0.02)
    assert cancelled() > before
    assert infer(client, "slow", inputs=[as_json(ONES)]).status_code == 200


def picture(value: int, kind: str = "PNG", size: tuple[int, int] = (16, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_become_classes(client: httpx.Client, kind: str) -> None:
    for value, label in ((250, "bright"), (5, "dark")):
        answer = client.post("/v2/models/mean/classify?k=1", content=picture(value, kind))
        assert answer.status_code == 200, answer.text
        (best,) = answer.json()["classes"]
        assert best["label"] == label and best["score"] > 0.9


def png_bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises pixels that it does not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data)
        for kind, data in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "no image that can be read"),
        (b"GIF89a not really", 400, "expected JPEG, PNG or WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "no image"),
        (picture(9)[:45], 400, "cannot be read as an image"),
        (png_bomb(2000, 2000), 413, "more than 1,000,000 pixels"),
        (png_bomb(100_000, 100_000), 413, "more than 1,000,000 pixels"),
        (png_bomb(1000, 1000), 400, "cannot be read as an image"),
        (png_bomb(1, 900_000), 413, "as it is or resized"),
    ],
)
def test_what_is_no_image(
    client: httpx.Client, machine_folder: str, body: bytes, status: int, message: str
) -> None:
    answer = client.post("/v2/models/mean/classify", content=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"] and machine_folder not in answer.text


def test_classify_says_what_it_cannot_do(client: httpx.Client) -> None:
    answer = client.post("/v2/models/every_dtype/classify", content=picture(1))
    assert answer.status_code == 400 and "how images become" in answer.json()["error"]
    for k in ("0", "-1", "a", "1.5", "1000000"):
        answer = client.post("/v2/models/mean/classify", params={"k": k}, content=picture(1))
        assert answer.status_code == 400 and "expected 1 to 999,999" in answer.json()["error"]


def test_statistics_and_metrics_count(client: httpx.Client) -> None:
    def counts() -> tuple[int, int]:
        (stats,) = client.get("/v2/models/mean/versions/1/stats").json()["model_stats"]
        return stats["inference_count"], stats["inference_stats"]["success"]["count"]

    samples, requests = counts()
    infer(client, inputs=[as_json(ONES)])
    assert counts() == (samples + 2, requests + 1)
    text = client.get("/metrics").text
    assert f'dlzoo_samples_total{{model="mean",version="1"}} {samples + 2}.0' in text
    assert "dlzoo_request_seconds_bucket" in text and "process_resident_memory_bytes" in text
    names = {s["name"] for s in client.get("/v2/models/stats").json()["model_stats"]}
    assert names == {"mean", "every_dtype", "slow"}


def test_the_repository_over_http(client: httpx.Client, machine_folder: str) -> None:
    assert client.post("/v2/repository/models/mean/unload").status_code == 200
    assert infer(client, inputs=[as_json(ONES)]).status_code == 404
    index = {e["name"]: e for e in client.post("/v2/repository/index", json={}).json()}
    assert index["mean"]["state"] == "UNAVAILABLE" and index["slow"]["state"] == "READY"
    ready = client.post("/v2/repository/index", json={"ready": True}).json()
    assert {e["name"] for e in ready} == {"slow", "every_dtype"}
    assert client.post("/v2/repository/models/mean/load", json={}).status_code == 200
    assert infer(client, inputs=[as_json(ONES)]).status_code == 200
    refused = client.post(
        "/v2/repository/models/mean/load", json={"parameters": {"config": "{}"}}
    )
    assert refused.status_code == 501
    assert client.post("/v2/repository/models/no/load").status_code == 404
    assert machine_folder not in client.post("/v2/repository/index", json={}).text


def test_pages_of_other_sites_are_refused(client: httpx.Client) -> None:
    evil = {"Origin": "https://evil.example"}
    answer = client.post("/v2/repository/models/mean/unload", headers=evil)
    assert answer.status_code == 403 and "other sites" in answer.json()["error"]
    own = {"Origin": str(client.base_url).rstrip("/")}
    assert client.post("/v2/repository/index", json={}, headers=own).status_code == 200


def test_every_documented_address_answers(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        address = path.replace("{model}", "mean").replace("{version}", "1")
        for method in methods:
            if "unload" in path:
                continue
            answer = client.request(method, address)
            assert answer.status_code in (200, 400, 404), (path, answer.text)
            assert str(answer.status_code) in document["paths"][path][method]["responses"]
    page = client.get("/docs")
    assert page.status_code == 200 and "/v2/models/{model}/infer" in page.text


def test_answers_hold_no_path_of_the_machine(
    client: httpx.Client, machine_folder: str
) -> None:
    for path in ("", "/config", "/stats", "/card", "/versions/7", "/report"):
        assert machine_folder not in client.get(f"/v2/models/mean{path}").text
