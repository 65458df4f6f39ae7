"""Triton: the core of the nvidia-pytriton wheel on the repository that ``dlzoo deploy`` writes.

Its C++ onnxruntime backend is in no package: a Python backend of that name stands in for it.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from bundles import Model
from environments import ONNXRUNTIME, NotRunError, environment_with, unpacked_wheel
from servers import HOST, MAX_BATCH, Ports, Server, Start

_WHEEL = "nvidia-pytriton==0.7.0"
_SHARED = Path("/dev/shm")


class TritonServer(Server):
    """The real core, both protocols, dynamic batching as ``dlzoo deploy`` configures it."""

    name = "triton"
    stop_s = 30

    def prepare(self) -> str:
        folder = unpacked_wheel(self.environments / "triton", _WHEEL)
        server = folder / "pytriton" / "tritonserver"
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
        if not stub.exists():
            raise NotRunError(f"{_WHEEL} has no stub for Python {python}")
        copied = server / "backends" / "python" / stub.name
        if not copied.exists():
            shutil.copy(stub, copied)
        for file in (server / "bin" / "tritonserver", copied):
            file.chmod(0o755)
        # Its Python module predates NumPy 2.
        environment_with(folder / "python", "numpy<2", ONNXRUNTIME)
        self._server, self._libraries = server, folder / "nvidia_pytriton.libs"
        self._python = folder / "python" / "bin"
        return "2.51 core, Python onnxruntime backend"

    def start_of(self, model: Model, folder: Path, ports: Ports) -> Start:
        from dlzoo.runtime.bundle.bundle import Bundle
        from dlzoo.runtime.deploy.deployment import deploy_bundle
        from dlzoo.runtime.deploy.options import DeployOptions

        repository, backends = folder / "models", folder / "backends"
        shutil.rmtree(repository, ignore_errors=True)
        options = DeployOptions(max_batch_size=MAX_BATCH, ensemble=False)
        deploy_bundle(Bundle.open(model.bundle), "triton", repository, options=options)
        shutil.rmtree(backends, ignore_errors=True)
        backends.mkdir()
        (backends / "python").symlink_to(self._server / "backends" / "python")
        (backends / "onnxruntime").mkdir()
        code = Path(__file__).with_name("triton_backend.py")
        shutil.copyfile(code, backends / "onnxruntime" / "model.py")
        libraries = [str(self._libraries), str(sysconfig.get_config_var("LIBDIR"))]
        environment = {
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            # The backend's embedded Python takes its packages from the first python3 there.
            "PATH": f"{self._python}{os.pathsep}{os.environ['PATH']}",
            "SESSION_THREADS": str(model.num_threads),
        }
        self._shared_before = set(_SHARED.glob("triton_*"))
        return Start(
            [
                str(self._server / "bin" / "tritonserver"),
                f"--model-repository={repository}",
                f"--backend-directory={backends}",
                "--disable-auto-complete-config",
                "--exit-timeout-secs=5",
                *(f"--{name}-address={HOST}" for name in ("http", "grpc", "metrics")),
                f"--http-port={ports.http}",
                f"--grpc-port={ports.grpc}",
                f"--metrics-port={ports.metrics}",
            ],
            environment,
        )

    def after_stop(self) -> None:
        for leftover in set(_SHARED.glob("triton_*")) - self._shared_before:
            leftover.unlink(missing_ok=True)
