"""MLServer and the KServe SDK, each with the smallest model class that a user of it would write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

from bundles import Model
from environments import ONNXRUNTIME, environment_with
from servers import HOST, Ports, Server, Start, installed_version

_HERE = Path(__file__).resolve().parent


class MlServer(Server):
    """MLServer, the model in the server's own process (with worker processes it is slower)."""

    name = "mlserver"
    lacks: ClassVar = {"binary": "MLServer has no binary tensors over HTTP"}

    def prepare(self) -> str:
        folder = self.environments / "mlserver"
        # uvloop 0.22 no longer has a name that MLServer imports.
        self._python = environment_with(folder, "mlserver", "uvloop<0.22", ONNXRUNTIME)
        return installed_version(self._python, "mlserver")

    def start_of(self, model: Model, folder: Path, ports: Ports) -> Start:
        shutil.copyfile(_HERE / "mlserver_model.py", folder / "mlserver_model.py")
        server = {
            "host": HOST,
            "http_port": ports.http,
            "grpc_port": ports.grpc,
            "metrics_port": ports.metrics,
            "parallel_workers": 0,
            "debug": False,
        }
        settings = {
            "name": model.name,
            "implementation": "mlserver_model.OnnxModel",
            "parameters": {
                "uri": str(model.file.resolve()),
                "extra": {"threads": model.num_threads},
            },
        }
        (folder / "settings.json").write_text(json.dumps(server))
        (folder / "model-settings.json").write_text(json.dumps(settings))
        command = [str(self._python.with_name("mlserver")), "start", "."]
        return Start(command, folder=folder)


class KServeSdk(Server):
    """KServe's Python SDK, one process."""

    name = "kserve"

    def prepare(self) -> str:
        folder = self.environments / "kserve"
        self._python = environment_with(folder, "kserve", ONNXRUNTIME)
        return installed_version(self._python, "kserve")

    def start_of(self, model: Model, folder: Path, ports: Ports) -> Start:
        return Start(
            [
                str(self._python),
                str(_HERE / "kserve_model.py"),
                *("--model_name", model.name, "--model", str(model.file.resolve())),
                *("--threads", str(model.num_threads)),
                *("--http_port", str(ports.http), "--grpc_port", str(ports.grpc)),
            ],
            folder=folder,
        )
