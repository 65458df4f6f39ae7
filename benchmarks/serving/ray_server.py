"""Ray Serve: the application that ``dlzoo deploy --target ray`` writes, one replica with all cores."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

from bundles import Model
from environments import ONNXRUNTIME, environment_with
from servers import MAX_BATCH, Ports, Server, Start, installed_version

_ROOT = Path(__file__).resolve().parents[2]
_RAY = "ray[serve]==2.60.0"
#: The packages that dlzoo needs to serve, without PyTorch.
_SERVED = (
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


class RayServe(Server):
    """Ray's proxies in front of one replica, which answers as ``dlzoo serve`` does."""

    name = "ray"
    stop_signal = signal.SIGINT
    stop_s = 40

    def prepare(self) -> str:
        folder = self.environments / "ray"
        # In one call with Ray: both pin gRPC and protobuf.
        self._python = environment_with(
            folder, _RAY, "tritonclient[grpc]", ONNXRUNTIME, *_SERVED
        )
        return installed_version(self._python, "ray")

    def start_of(self, model: Model, folder: Path, ports: Ports) -> Start:
        from dlzoo.runtime.bundle.bundle import Bundle
        from dlzoo.runtime.deploy.deployment import deploy_bundle
        from dlzoo.runtime.deploy.options import DeployOptions

        application = folder / "ray"
        shutil.rmtree(application, ignore_errors=True)
        options = DeployOptions(max_batch_size=MAX_BATCH)
        deploy_bundle(Bundle.open(model.bundle), "ray", application, options=options)
        path = application / "serve-config.json"
        config = json.loads(path.read_text())
        config["http_options"]["port"] = ports.http
        config["grpc_options"]["port"] = ports.grpc
        (deployment,) = config["applications"][0]["deployments"]
        # As many threads as the other servers have, and one replica, because each is one server.
        deployment["ray_actor_options"]["num_cpus"] = model.num_threads
        deployment["autoscaling_config"]["max_replicas"] = 1
        # The concurrency of this benchmark, not of a production replica.
        deployment["max_ongoing_requests"] = 256
        path.write_text(json.dumps(config))
        # Import dlzoo from the source tree: installing it would require PyTorch.
        packages = folder / "path"
        packages.mkdir(exist_ok=True)
        if not (packages / "dlzoo").exists():
            (packages / "dlzoo").symlink_to(_ROOT)
        temporary = self.environments / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = {
            "PYTHONPATH": os.pathsep.join([str(packages), str(application)]),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": str(temporary),
        }
        command = [str(self._python.with_name("serve")), "run", path.name]
        return Start(command, environment, application)
