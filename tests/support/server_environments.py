"""Servers from packages: virtual environments, free ports, and waiting until they are ready."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest


def run_or_skip(what: str, *command: str | Path) -> None:
    """Run an installer; if it fails, the test is skipped with the end of its output."""
    try:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=900
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} did not come within 900 s")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        pytest.skip(f"{what} cannot be had: {lines[-1]}")


def environment_with(folder: Path, what: str, *requirements: str) -> Path:
    """Make a virtual environment with these packages; return its Python."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run_or_skip(what, sys.executable, "-m", "venv", folder)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run_or_skip(what, *pip, "--retries=0", *requirements)
        (folder / "complete").touch()
    return python


def free_ports(count: int) -> list[int]:
    """Find different ports that are free now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def wait_until_ready(
    url: str, process: "subprocess.Popen[bytes]", log: Path, seconds: float = 120
) -> None:
    """Wait until a server answers 200; its log is in the failure."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server is not ready: {log.read_text(errors='replace')[-3000:]}")
