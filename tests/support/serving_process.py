"""``dlzoo serve`` in its own process, for tests that send it requests."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class ServingProcess:
    """A server that is ready; ``log`` is its output on stderr."""

    process: subprocess.Popen[str]
    http: str
    grpc: str
    models: list[tuple[str, str]]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self) -> int:
        """Ask the server to end, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(
    *arguments: str | Path, folder: Path, **environment: str
) -> Iterator[ServingProcess]:
    """Start a server on free ports, and end it with the block."""
    log_path = folder / "server.log"
    command = [
        *(sys.executable, "-m", "dlzoo", "serve", *map(str, arguments), "--json"),
        *("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"),
    ]
    if "--drain-delay" not in arguments:
        command += ["--drain-delay", "0"]
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log_path.read_text()
        ready = json.loads(line)
        yield ServingProcess(
            process=process,
            http=ready["http"],
            grpc=ready["grpc"],
            models=[(model["name"], model["version"]) for model in ready["models"]],
            log_path=log_path,
        )
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
