"""Real servers from packages, each in its own environment; slow, skipped if a package is missing."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from dlzoo.runtime.bundle.bundle import Bundle
from tests.support.server_environments import (
    environment_with,
    free_ports,
    run_or_skip,
    wait_until_ready,
)
from tests.support.small_bundle import small_bundle

TRITON = "nvidia-pytriton==0.7.0"
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A sound bundle. Do not change it."""
    return small_bundle(tmp_path_factory.mktemp("bundle") / "small")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of packages; DLZOO_TEST_CACHE names one that is kept between runs."""
    kept = os.environ.get("DLZOO_TEST_CACHE")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("servers")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def triton(cache: Path) -> Path:
    """The folder of a Triton server with the stand-in for its onnxruntime backend."""
    libpython = Path(str(sysconfig.get_config_var("LIBDIR"))) / str(
        sysconfig.get_config_var("INSTSONAME")
    )
    if not libpython.exists():
        pytest.skip(f"Triton's Python backend needs {libpython.name}, which is missing here")
    folder = cache / "triton"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        run_or_skip(TRITON, *pip, "--no-deps", "--quiet", "--retries=0", "-d", folder, TRITON)
        (wheel,) = folder.glob("nvidia_pytriton-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()
        server = folder / "pytriton" / "tritonserver"
        name = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stub = server / "python_backend_stubs" / name / "triton_python_backend_stub"
        if not stub.exists():
            pytest.skip(f"{TRITON} has no stub for Python {name}")
        shutil.copy(stub, server / "backends" / "python")
        for file in (server / "bin" / "tritonserver", server / "backends/python" / stub.name):
            file.chmod(0o755)
        (folder / "complete").touch()
    backend = folder / "pytriton/tritonserver/backends/onnxruntime"
    backend.mkdir(exist_ok=True)
    shutil.copyfile(HERE / "onnxruntime_backend.py.txt", backend / "model.py")
    # Its Python module predates NumPy 2.
    environment_with(
        folder / "python",
        "Triton's Python packages",
        "numpy<2",
        f"onnxruntime=={version('onnxruntime')}",
        f"pillow=={version('pillow')}",
    )
    return folder


StartTriton = Callable[..., "contextmanager[dict[str, str]]"]


@pytest.fixture
def start_triton(triton: Path, tmp_path: Path) -> Callable[..., object]:
    """Start Triton on a repository, yield its addresses, and stop it."""

    @contextmanager
    def start(repository: Path, *options: str) -> Iterator[dict[str, str]]:
        ports = free_ports(3)
        server = triton / "pytriton" / "tritonserver"
        command = [
            server / "bin" / "tritonserver",
            f"--model-repository={repository}",
            f"--backend-directory={server / 'backends'}",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=5",
            *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
            f"--http-port={ports[0]}",
            f"--grpc-port={ports[1]}",
            f"--metrics-port={ports[2]}",
            *options,
        ]
        libraries = [triton / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            # The backend's embedded Python takes its packages from the first python3 there.
            "PATH": f"{triton / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        shared_before = _shared_memory()
        log = tmp_path / "triton.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                list(map(str, command)), stdout=file, stderr=file, env=environment
            )
        try:
            wait_until_ready(f"http://127.0.0.1:{ports[0]}/v2/health/ready", process, log)
            yield {
                "http": f"http://127.0.0.1:{ports[0]}",
                "grpc": f"grpc://127.0.0.1:{ports[1]}",
            }
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for leftover in _shared_memory() - shared_before:  # what a crash leaves
                leftover.unlink(missing_ok=True)

    return start


def _shared_memory() -> set[Path]:
    return set(Path("/dev/shm").glob("triton_python_backend_shm_region_*"))
