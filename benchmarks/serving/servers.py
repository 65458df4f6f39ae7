"""A server under measurement: how it is started on a model, when it is ready, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from bundles import Model
from environments import NotRunError
from processes import end_tree

HOST = "127.0.0.1"
#: Samples that a server may run together: the default of ``dlzoo serve``.
MAX_BATCH = 8


@dataclass(frozen=True)
class Ports:
    """The addresses that a server listens on."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True)
class Start:
    """The command that starts a server."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Running:
    """A server that is ready, and how long that took from the process's start."""

    pid: int
    ports: Ports
    ready_s: float


class Server(ABC):
    """One kind of server; a subclass says how it is prepared and started."""

    name: ClassVar[str]
    #: Protocols that it lacks, with the reason.
    lacks: ClassVar[dict[str, str]] = {}
    ready_path: ClassVar[str] = "/v2/health/ready"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_s: ClassVar[float] = 10

    def __init__(self, environments: Path) -> None:
        self.environments = environments

    @abstractmethod
    def prepare(self) -> str:
        """Install the server's packages; return its version.

        Raises:
            NotRunError: it cannot be had here.
        """

    @abstractmethod
    def start_of(self, model: Model, folder: Path, ports: Ports) -> Start:
        """Write the server's files into ``folder``; return the command that starts it."""

    def after_stop(self) -> None:
        """Remove files that the server leaves behind; most servers leave none."""
        return None

    @contextmanager
    def running(self, model: Model, folder: Path, seconds: float = 180) -> Iterator[Running]:
        """Start the server and wait until it is ready; the end of the block stops it.

        Raises:
            NotRunError: it ends, or is not ready in time.
        """
        folder.mkdir(parents=True, exist_ok=True)
        ports = Ports(*free_ports(3))
        start = self.start_of(model, folder, ports)
        log = folder / "server.log"
        begin = time.perf_counter()
        with log.open("wb") as file:
            process = subprocess.Popen(
                start.command,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **start.environment},
                cwd=start.folder,
            )
        try:
            self._wait(process, f"http://{HOST}:{ports.http}{self.ready_path}", seconds, log)
            yield Running(process.pid, ports, time.perf_counter() - begin)
        finally:
            end_tree(process, self.stop_signal, self.stop_s)
            self.after_stop()

    def _wait(
        self, process: subprocess.Popen[bytes], url: str, seconds: float, log: Path
    ) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.01)
        lines = log.read_text(errors="replace").strip().splitlines() or ["nothing was said"]
        what = "is not ready in time" if process.poll() is None else "ended"
        raise NotRunError(f"the server {what}: {' | '.join(lines[-3:])[-500:]}")


class DlzooServer(Server):
    """``dlzoo serve``, with its defaults."""

    name = "dlzoo"

    def prepare(self) -> str:
        from dlzoo.version import __version__

        return __version__

    def start_of(self, model: Model, folder: Path, ports: Ports) -> Start:
        command = [str(Path(sys.executable).with_name("dlzoo")), "serve", str(model.bundle)]
        command += ["--http", f"{HOST}:{ports.http}", "--grpc", f"{HOST}:{ports.grpc}"]
        return Start([*command, "--max-batch", str(MAX_BATCH), "--drain-delay", "0"])


class DlzooWorkers(DlzooServer):
    """``dlzoo serve`` with a process for each core."""

    name = "dlzoo-workers"

    def start_of(self, model: Model, folder: Path, ports: Ports) -> Start:
        start = super().start_of(model, folder, ports)
        return Start([*start.command, "--workers", str(os.cpu_count())])


def free_ports(count: int) -> list[int]:
    """Find different ports that are free now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def installed_version(python: Path, package: str) -> str:
    """Read a package's version in another environment.

    Raises:
        NotRunError: it is not there.
    """
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise NotRunError(f"{package} is not installed in its environment")
    return done.stdout.strip()
