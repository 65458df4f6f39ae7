"""A real server over HTTP: the protocol's routes, its errors, its queue and its counters."""

import json
import socket
import threading
import time

import httpx
import numpy as np

from tests.support.http_requests import ONES, as_json, infer


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


def test_unknown_addresses_models_and_versions(client: httpx.Client) -> None:
    for address, message in (
        ("/v2/models/nobody", "model 'nobody' is unknown"),
        ("/v2/models/mean/versions/2", "no version '2' loaded"),
        ("/v2/models/mean/versions/%2e%2e", "no version '..'"),
        ("/v3", "no such address"),
    ):
        answer = client.get(address)
        assert answer.status_code == 404 and message in answer.json()["error"]
    answer = client.get("/v2/models/mean/infer")
    assert (
        answer.status_code == 405 and "does not support the method" in answer.json()["error"]
    )


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
