"""Several processes behind one port: one that ends is replaced, and all have the same models."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import pytest

from tests.support.served_bundles import binary_request, break_model, mean_bundle
from tests.support.serving_process import ServingProcess, serving

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux spreads connections"
)
WORKERS = ("--workers", "2")
#: By chance all of these go to one of two workers once in 500,000 times.
NUM_CONNECTIONS = 20
Result = TypeVar("Result")


def on_every_worker(
    server: ServingProcess, ask: Callable[[httpx.Client], Result]
) -> list[Result]:
    """Ask over many connections, so that each worker is asked."""
    answers = []
    for _ in range(NUM_CONNECTIONS):
        with httpx.Client(base_url=server.http, timeout=60) as client:
            answers.append(ask(client))
    return answers


def infer(client: httpx.Client, value: float = 3.0) -> tuple[str, float]:
    """Version and mean; version N gives N times the mean."""
    body, size = binary_request({"image": ("FP32", np.full((1, 1, 8, 8), value, np.float32))})
    headers = {"Inference-Header-Content-Length": str(size)}
    answer = client.post("/v2/models/mean/infer", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    return document["model_version"], document["outputs"][0]["data"][0]


def successes(server: ServingProcess) -> dict[str, float]:
    """Answered requests by worker, as Prometheus reads them."""
    found = {}
    for line in httpx.get(f"{server.http}/metrics").text.splitlines():
        if line.startswith("dlzoo_requests_total{") and 'outcome="success"' in line:
            found[line.split('worker="')[1].split('"')[0]] = float(line.split()[-1])
    return found


def worker_pids(server: ServingProcess) -> list[int]:
    pid = server.process.pid
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_all_workers_answer_and_are_counted_together(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean").path
    with serving(bundle, *WORKERS, folder=tmp_path) as server:
        assert server.models == [("mean", "1")]
        assert on_every_worker(server, infer) == [("1", 3.0)] * NUM_CONNECTIONS
        by_worker = successes(server)
        assert set(by_worker) == {"1", "2"} and min(by_worker.values()) > 0
        assert sum(by_worker.values()) == NUM_CONNECTIONS
        (stats,) = httpx.get(f"{server.http}/v2/models/mean/stats").json()["model_stats"]
        assert stats["inference_stats"]["success"]["count"] == NUM_CONNECTIONS

        import tritonclient.grpc as triton

        with triton.InferenceServerClient(server.grpc) as client:
            (grpc_stats,) = client.get_inference_statistics("mean").model_stats
            assert grpc_stats.inference_stats.success.count == NUM_CONNECTIONS
        text = httpx.get(f"{server.http}/metrics").text
        for worker in ("1", "2"):
            assert f'process_resident_memory_bytes{{worker="{worker}"}}' in text
            assert f'dlzoo_ready{{worker="{worker}"}} 1.0' in text
        pids = worker_pids(server)
        assert len(pids) == 2
        assert server.stop() == 0
        assert all(map(has_ended, pids))
        assert "Traceback" not in server.log and "ERROR" not in server.log


def test_a_killed_worker_is_replaced_by_one_with_the_same_models(tmp_path: Path) -> None:
    models = tmp_path / "models"
    mean_bundle(models / "mean" / "1")
    mean_bundle(models / "other" / "1", name="other")
    with serving(models, *WORKERS, folder=tmp_path) as server:
        assert (
            httpx.post(f"{server.http}/v2/repository/models/other/unload").status_code == 200
        )
        # A new version is in the folder, but no client has loaded it.
        mean_bundle(models / "mean" / "2", scale=2.0)
        victim, survivor = worker_pids(server)
        os.kill(victim, signal.SIGKILL)
        lost, answered = 0, 0
        end = time.monotonic() + 60
        while "was replaced" not in server.log:
            assert time.monotonic() < end
            try:
                with httpx.Client(base_url=server.http, timeout=60) as client:
                    assert infer(client) == ("1", 3.0)
                answered += 1
            except httpx.TransportError:
                lost += 1  # its connection was to the killed worker
        assert answered > lost
        assert survivor in worker_pids(server) and victim not in worker_pids(server)
        assert "worker 1 ended with exit status -9" in server.log
        before = successes(server)
        assert on_every_worker(server, infer) == [("1", 3.0)] * NUM_CONNECTIONS
        after = successes(server)
        assert all(after[worker] > before[worker] for worker in ("1", "2"))
        states = on_every_worker(
            server, lambda client: client.get("/v2/models/other").status_code
        )
        assert set(states) == {404}
        # The new worker follows changes like the others.
        assert httpx.post(f"{server.http}/v2/repository/models/mean/load").status_code == 200
        assert httpx.post(f"{server.http}/v2/repository/models/other/load").status_code == 200
        assert set(on_every_worker(server, infer)) == {("2", 6.0)}
        states = on_every_worker(
            server, lambda client: client.get("/v2/models/other").status_code
        )
        assert set(states) == {200}
        assert server.stop() == 0


def test_a_bad_version_changes_no_worker_and_each_says_why(tmp_path: Path) -> None:
    models = tmp_path / "models"
    mean_bundle(models / "mean" / "1")
    with serving(models, *WORKERS, folder=tmp_path) as server:
        mean_bundle(models / "mean" / "2", scale=2.0)
        break_model(models / "mean" / "2", hashed=True)
        answers = on_every_worker(
            server, lambda client: client.post("/v2/repository/models/mean/load")
        )
        for answer in answers:
            assert answer.status_code == 400
            assert "the verdict is fail" in answer.json()["error"]
        indexes = on_every_worker(
            server, lambda client: client.post("/v2/repository/index").json()
        )
        for index in indexes:
            states = {entry["version"]: entry for entry in index}
            assert states["1"]["state"] == "READY"
            assert "the verdict is fail" in states["2"]["reason"]
        assert set(on_every_worker(server, infer)) == {("1", 3.0)}
        unknown = on_every_worker(
            server, lambda client: client.post("/v2/repository/models/nobody/load")
        )
        assert {answer.status_code for answer in unknown} == {404}
        assert str(tmp_path) not in "".join(answer.text for answer in answers)
        assert "is replaced" not in server.log


def test_a_worker_joins_only_with_what_the_others_serve(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mean" / "1"
    mean_bundle(folder)
    with serving(tmp_path / "models", *WORKERS, folder=tmp_path) as server:
        shutil.rmtree(folder)
        mean_bundle(folder, scale=5.0)
        os.kill(worker_pids(server)[0], signal.SIGKILL)
        wait_until(lambda: "has changed since its model was loaded" in server.log)
        answers = Counter()
        for _ in range(NUM_CONNECTIONS):
            with httpx.Client(base_url=server.http, timeout=60) as client:
                answers[infer(client)] += 1
        assert answers == {("1", 3.0): NUM_CONNECTIONS}
        # Loaded again, all serve it, and the next try to replace the worker succeeds.
        assert httpx.post(f"{server.http}/v2/repository/models/mean/load").status_code == 200
        wait_until(lambda: "was replaced" in server.log, 60)
        assert set(on_every_worker(server, infer)) == {("1", 15.0)}
        assert len(worker_pids(server)) == 2
        assert server.stop() == 0


def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean").path
    with serving(bundle, *WORKERS, folder=tmp_path) as server:
        pids = worker_pids(server)
        server.process.kill()
        server.process.wait()
        wait_until(lambda: all(map(has_ended, pids)))
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.http}/v2/health/live")


def run_serve(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dlzoo", "serve", *map(str, arguments), *WORKERS]
    command += ["--http", "127.0.0.1:0"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def errors_in(stderr: str) -> list[str]:
    """All lines except those of the workers' log."""
    return [
        line for line in stderr.splitlines() if not re.match(r"\d{4}-.* worker \d: ", line)
    ]


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean")
    break_model(bundle.path, hashed=True)
    done = run_serve(bundle.path, "--grpc", "off")
    assert done.returncode == 1 and done.stdout == "", done.stderr
    (line,) = errors_in(done.stderr)
    assert "the verdict is fail" in line and "It is not served" in line
    missing = run_serve(tmp_path / "nothing", "--grpc", "off")
    assert missing.returncode == 2
    assert len(errors_in(missing.stderr)) == 1 and "is not a folder" in missing.stderr


def test_a_taken_port_is_one_line_and_nothing_is_loaded(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean").path
    with serving(bundle, *WORKERS, folder=tmp_path) as server:
        # Workers share a port with each other, but not with other programs.
        for option, place in (("--http", server.http.removeprefix("http://")), ("--grpc", server.grpc)):  # fmt: skip
            for workers in ("1", "2"):
                command = [sys.executable, "-m", "dlzoo", "serve", str(bundle)]
                command += ["--http", "127.0.0.1:0", "--grpc", "off", option, place]
                command += ["--workers", workers]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
                assert done.returncode == 2, done.stderr
                (line,) = done.stderr.strip().splitlines()
                assert f"cannot listen on {place} ({option})" in line


def test_a_worker_that_ends_while_it_loads_is_one_line(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean").path
    command = [sys.executable, "-m", "dlzoo", "serve", str(bundle), *WORKERS]
    command += ["--http", "127.0.0.1:0", "--grpc", "off"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: len(children.read_text().split()) == 2)
    pids = [int(pid) for pid in children.read_text().split()]
    os.kill(pids[0], signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 2 and stdout == ""
    (line,) = errors_in(stderr)
    assert "Worker 1 of 2 ended with exit status -9 before it was ready" in line
    wait_until(lambda: all(map(has_ended, pids)))


def test_ctrl_c_while_loading_leaves_no_process(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean").path
    for wait_s in (0.3, 0.8, 1.3):
        command = [sys.executable, "-m", "dlzoo", "serve", str(bundle), *WORKERS]
        command += ["--http", "127.0.0.1:0", "--grpc", "off"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(wait_s)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode in (0, 130), stderr
        assert "Traceback" not in stderr
        wait_until(lambda pids=children: all(has_ended(int(pid)) for pid in pids))
