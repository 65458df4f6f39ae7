"""The Ray Serve application in a real Ray: two replicas, one killed under load."""

import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from dlzoo.errors import ServerError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.deploy.deployment import check_deployment, deploy_bundle
from dlzoo.runtime.deploy.options import DeployOptions
from dlzoo.runtime.remote.connect import connect
from dlzoo.runtime.remote.model import RefusedError
from tests.support.dlzoo_process import run_dlzoo
from tests.support.server_environments import environment_with, free_ports, wait_until_ready

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RAY = "ray[serve]==2.60.0"


@pytest.fixture
def ray_urls(bundle: Bundle, cache: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Run the written application in its own Ray, with two replicas from the start."""
    python = environment_with(
        cache / "ray",
        RAY,
        RAY,
        "tritonclient[grpc]",  # in one call with Ray: both pin gRPC and protobuf
        f"onnxruntime=={version('onnxruntime')}",
        *(
            "numpy",
            "orjson",
            "pillow",
            "typer",
            "rich",
            "starlette",
            "uvicorn",
            "prometheus-client",
        ),
    )
    folder = tmp_path / "ray"
    deploy_bundle(bundle, "ray", folder, options=DeployOptions(max_batch_size=8))
    http, grpc = free_ports(2)
    path = folder / "serve-config.json"
    config = json.loads(path.read_text())
    config["http_options"]["port"] = http
    config["grpc_options"]["port"] = grpc
    (deployment,) = config["applications"][0]["deployments"]
    deployment["autoscaling_config"].update(min_replicas=2, max_replicas=3)
    deployment["ray_actor_options"]["num_cpus"] = 0.25
    path.write_text(json.dumps(config))
    assert check_deployment(folder).problems == ()
    # Import dlzoo from the source tree: installing it would require PyTorch.
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "dlzoo").symlink_to(ROOT)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), str(folder)]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(cache / "tmp"),
    }
    (cache / "tmp").mkdir(exist_ok=True)
    log = tmp_path / "ray.log"
    command = [str(python.parent / "serve"), "run", path.name]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=file
        )
    try:
        url = f"http://127.0.0.1:{http}"
        wait_until_ready(f"{url}/v2/health/ready", process, log)
        yield {"http": url, "grpc": f"grpc://127.0.0.1:{grpc}"}
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def replicas() -> list[int]:
    """The process ids of the replicas of our application."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::ServeReplica:small:model"):
                found.append(int(folder.name))
    return found


def test_it_is_proved_and_outlives_a_replica(bundle: Bundle, ray_urls: dict[str, str]) -> None:
    for url in ray_urls.values():
        done = run_dlzoo("verify", bundle.path, "--server", url)
        assert done.returncode == 0, done.stderr
    end = time.monotonic() + 60
    while len(replicas()) < 2 and time.monotonic() < end:
        time.sleep(0.5)
    victims = replicas()
    assert len(victims) >= 2

    golden_sets = [g for g in bundle.golden_sets() if np.isfinite(g.inputs["image"]).all()]
    counts: Counter[str] = Counter()
    stop = threading.Event()

    def work(number: int) -> None:
        golden = golden_sets[number % len(golden_sets)]
        remote = connect(ray_urls["grpc"], "small", timeout_s=30)
        while not stop.is_set():
            try:
                got = remote.infer(golden.inputs, ["logits"])["logits"]
            except (RefusedError, ServerError) as error:
                counts[f"lost: {error}"] += 1
                continue
            # A crossed answer would have another batch size or other scores.
            expected = golden.reference["logits"]
            right = got.shape == expected.shape and np.allclose(got, expected, rtol=1e-4)
            counts["right" if right else "wrong"] += 1
        remote.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    os.kill(victims[0], signal.SIGKILL)
    time.sleep(8)
    stop.set()
    for thread in threads:
        thread.join()
    assert counts["right"] > 100 and counts["wrong"] == 0, counts
    # Ray's router repeats the requests of the dead replica, or answers with an error.
    lost = sum(count for what, count in counts.items() if what.startswith("lost"))
    assert lost <= len(threads), counts
    end = time.monotonic() + 60
    while len(set(replicas()) - {victims[0]}) < 2 and time.monotonic() < end:
        time.sleep(0.5)
    assert len(set(replicas()) - {victims[0]}) >= 2
