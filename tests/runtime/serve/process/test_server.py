"""Servers in their own processes: keys, TLS, reloads under load, and stopping without loss."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.served_bundles import binary_request, break_model, mean_bundle
from tests.support.serving_process import ServingProcess, serving

#: Half a millisecond a sample: enough that requests queue up and run together.
BUSY = {"work": 6, "width": 128}


async def mixed_requests(
    server: ServingProcess, *, num_requests: int, num_clients: int, reload_to: Path
) -> Counter[str]:
    """Requests of several sizes as JSON, binary and gRPC, while versions change.

    Each answer is checked against its own input. Returns how many each version gave.
    """
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    answered: Counter[str] = Counter()

    async def ask(client: httpx.AsyncClient, stub: object, number: int) -> None:
        value = 1 + number % 997
        # The mean of each sample identifies it.
        x = np.stack(
            [np.full((1, 8, 8), value + i / 8, np.float32) for i in range(1 + number % 4)]
        )
        kind = number % 3
        if kind == 0:
            request = service_pb2.ModelInferRequest(model_name="mean", id=str(number))
            request.inputs.add(name="image", datatype="FP32", shape=x.shape)
            request.raw_input_contents.append(x.tobytes())
            answer = await stub.ModelInfer(request)  # type: ignore[attr-defined]
            scores = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(-1, 2)
            version, request_id = answer.model_version, answer.id
        else:
            if kind == 1:
                body, size = binary_request({"image": ("FP32", x)}, id=str(number))
                headers = {"Inference-Header-Content-Length": str(size)}
            else:
                tensor = {"name": "image", "shape": x.shape, "datatype": "FP32", "data": x.tolist()}  # fmt: skip
                body, headers = (
                    json.dumps({"id": str(number), "inputs": [tensor]}).encode(),
                    {},
                )
            got = await client.post("/v2/models/mean/infer", content=body, headers=headers)
            assert got.status_code == 200, got.text
            document = got.json()
            scores = np.array(document["outputs"][0]["data"]).reshape(-1, 2)
            version, request_id = document["model_version"], document["id"]
        assert request_id == str(number)
        # Version N gives N times the mean.
        expected = int(version) * x.mean((1, 2, 3), dtype=np.float64)
        assert np.allclose(scores, np.stack([expected, -expected], 1), rtol=1e-5, atol=0), (
            number
        )
        answered[version] += 1

    async def one_client(numbers: range) -> None:
        async with (
            httpx.AsyncClient(base_url=server.http, timeout=60) as client,
            grpc.aio.insecure_channel(server.grpc) as channel,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for number in numbers:
                await ask(client, stub, number)

    async def reload() -> None:
        while sum(answered.values()) < num_requests // 3:
            await asyncio.sleep(0.01)
        mean_bundle(reload_to / "3", scale=3.0, **BUSY)
        break_model(reload_to / "3", hashed=True)
        mean_bundle(reload_to / "2", scale=2.0, **BUSY)
        async with httpx.AsyncClient(base_url=server.http, timeout=60) as client:
            answer = await client.post("/v2/repository/models/mean/load")
        assert answer.status_code == 400
        assert (
            "the verdict is fail" in answer.text and "Version 2 is still served" in answer.text
        )

    clients = [range(i, num_requests, num_clients) for i in range(num_clients)]
    await asyncio.gather(reload(), *(one_client(numbers) for numbers in clients))
    return answered


def check_mixed_requests(
    folder: Path, num_requests: int, num_clients: int, *more: str
) -> None:
    mean_bundle(folder / "models" / "mean" / "1", **BUSY)
    arguments = ("--instances", "2", "--threads", "1", *more)
    with serving(folder / "models", *arguments, folder=folder) as server:
        answered = asyncio.run(
            mixed_requests(
                server,
                num_requests=num_requests,
                num_clients=num_clients,
                reload_to=folder / "models" / "mean",
            )
        )
        assert sum(answered.values()) == num_requests
        assert set(answered) == {"1", "2"}
        (stats,) = httpx.get(f"{server.http}/v2/models/stats").json()["model_stats"]
        assert stats["execution_count"] < answered["2"]  # requests ran together
        assert len(stats["batch_stats"]) == 8
        assert server.stop() == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_answer_is_lost_or_crossed_over_a_reload(tmp_path: Path, workers: str) -> None:
    check_mixed_requests(tmp_path, 2000, 32, "--workers", workers)


@pytest.mark.slow
def test_no_answer_is_lost_or_crossed_over_a_reload_of_many(tmp_path: Path) -> None:
    check_mixed_requests(tmp_path, 10_000, 64)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_polling_finds_new_versions(tmp_path: Path, workers: str) -> None:
    models = tmp_path / "models" / "mean"
    mean_bundle(models / "1")
    arguments = ("--poll", "0.1", "--workers", workers)
    with serving(tmp_path / "models", *arguments, folder=tmp_path) as server:
        mean_bundle(tmp_path / "new", scale=2.0)
        os.rename(tmp_path / "new", models / "2")
        for _ in range(100):
            versions = httpx.get(f"{server.http}/v2/models/mean").json()["versions"]
            if versions == ["2"]:
                break
            time.sleep(0.05)
        assert versions == ["2"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_reports_not_ready_first_and_finishes_requests(
    tmp_path: Path, workers: str
) -> None:
    bundle = mean_bundle(tmp_path / "slow", name="slow", work=6).path
    arguments = ("--drain-delay", "1.5", "--threads", "1", "--workers", workers)
    with serving(bundle, *arguments, folder=tmp_path) as server:
        answers: list[int] = []
        body, size = binary_request({"image": ("FP32", np.ones((8, 1, 8, 8), np.float32))})
        headers = {"Inference-Header-Content-Length": str(size)}

        def ask() -> None:
            with httpx.Client(base_url=server.http, timeout=60) as client:
                got = client.post("/v2/models/slow/infer", content=body, headers=headers)
                answers.append(got.status_code)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        time.sleep(0.15)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.15)
        with httpx.Client(base_url=server.http, timeout=60) as client:
            ready = client.get("/v2/health/ready")
            assert ready.status_code == 503 and ready.json() == {"ready": False}
            assert client.get("/v2/health/live").status_code == 200
            late = client.post("/v2/models/slow/infer", content=body, headers=headers)
            assert (
                late.status_code == 200
            )  # still listening, for clients that have not noticed
        for thread in threads:
            thread.join()
        assert answers == [200] * 6
        assert server.process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.http}/v2/health/live")


def test_a_full_queue_answers_429_and_when_to_try_again(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "slow", name="slow", work=6).path
    arguments = ("--queue-size", "2", "--max-batch", "8", "--threads", "1")
    with serving(bundle, *arguments, folder=tmp_path) as server:
        body, size = binary_request({"image": ("FP32", np.ones((8, 1, 8, 8), np.float32))})
        headers = {"Inference-Header-Content-Length": str(size)}

        async def ask(client: httpx.AsyncClient) -> httpx.Response:
            return await client.post("/v2/models/slow/infer", content=body, headers=headers)

        async def main() -> list[httpx.Response]:
            async with httpx.AsyncClient(base_url=server.http, timeout=60) as client:
                return await asyncio.gather(*(ask(client) for _ in range(12)))

        answers = asyncio.run(main())
        by_status = Counter(answer.status_code for answer in answers)
        assert set(by_status) == {200, 429} and by_status[200] >= 3
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert "queue is full" in answer.json()["error"]
        text = httpx.get(f"{server.http}/metrics").text
        assert f'outcome="rejected",version="1"}} {by_status[429]}.0' in text


def test_keys_and_fixed_models(tmp_path: Path) -> None:
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    bundle = mean_bundle(tmp_path / "mean").path
    (tmp_path / "key").write_text("correct horse\n")
    arguments = ("--api-key-file", tmp_path / "key", "--fixed-models")
    with serving(bundle, *arguments, folder=tmp_path) as server:
        right = {"Authorization": "Bearer correct horse"}
        with httpx.Client(base_url=server.http) as client:
            for path in ("/v2/health/ready", "/v2/health/live", "/", "/docs"):
                assert client.get(path).status_code == 200
            for path in ("/v2", "/v2/models/mean", "/metrics", "/v2/models/mean/report"):
                for headers in ({}, {"Authorization": "Bearer wrong"}):
                    answer = client.get(path, headers=headers)
                    assert answer.status_code == 401, path
                    assert answer.headers["www-authenticate"] == "Bearer"
            assert client.get("/v2", headers=right).status_code == 200
            answer = client.post("/v2/repository/models/mean/unload", headers=right)
            assert (
                answer.status_code == 403 and "does not let clients" in answer.json()["error"]
            )
        with triton.InferenceServerClient(server.grpc) as grpc_client:
            assert grpc_client.is_server_live()
            with pytest.raises(InferenceServerException, match="API key"):
                grpc_client.get_server_metadata()
            lower = {"authorization": "Bearer correct horse"}
            assert grpc_client.get_server_metadata(headers=lower).name == "dlzoo"
        assert "correct horse" not in server.log


def test_tls(tmp_path: Path) -> None:
    import ssl

    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    bundle = mean_bundle(tmp_path / "mean").path
    files = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    with serving(bundle, *files, folder=tmp_path) as server:
        assert server.http.startswith("https://")
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        assert httpx.get(f"{server.http}/v2", verify=context).json()["name"] == "dlzoo"
        credentials = grpc.ssl_channel_credentials((tmp_path / "cert.pem").read_bytes())
        with grpc.secure_channel(server.grpc, credentials) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
        certificate = str(tmp_path / "cert.pem")
        for url, variable in (
            (server.http, "SSL_CERT_FILE"),
            (f"grpcs://{server.grpc}", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
        ):
            command = [sys.executable, "-m", "dlzoo", "verify", str(bundle), "--server", url]
            command += ["--timeout", "5"]
            proved = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env={**os.environ, variable: certificate},
            )
            assert proved.returncode == 0, proved.stderr
            # Without the certificate the server is not trusted, in one line.
            refused = subprocess.run(command, capture_output=True, text=True)
            assert refused.returncode == 2
            assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
            assert f"{url} is not trusted" in refused.stderr and variable in refused.stderr


def test_no_torch_no_onnx_and_only_loopback(server: ServingProcess) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "libtorch" not in maps and "/torch/" not in maps and "/onnx/" not in maps
    port = int(server.http.rsplit(":", 1)[1])
    listening = {
        line.split()[1]
        for line in Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port:04X}")
    }
    assert listening == {f"0100007F:{port:04X}"}


def test_non_finite_inputs_and_slow_senders_are_refused(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean").path
    arguments = ("--refuse-non-finite", "--timeout", "0.3")
    with serving(bundle, *arguments, folder=tmp_path) as server:
        for value, status in ((1.0, 200), (np.nan, 400), (np.inf, 400)):
            array = np.full((1, 1, 8, 8), value, np.float32)
            body, size = binary_request({"image": ("FP32", array)})
            headers = {"Inference-Header-Content-Length": str(size)}
            url = f"{server.http}/v2/models/mean/infer"
            answer = httpx.post(url, content=body, headers=headers)
            assert answer.status_code == status, answer.text
        host, port = server.http.removeprefix("http://").split(":")
        head = b"POST /v2/models/mean/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n"
        for sent in (head, head + b'{"inputs"'):
            with socket.create_connection((host, int(port)), timeout=10) as raw:
                raw.sendall(sent)
                assert raw.recv(100).startswith(b"HTTP/1.1 408")
