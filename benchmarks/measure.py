"""Run a command as a process of its own and measure it: seconds and peak memory."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Measurement:
    """One run of one command."""

    seconds: float
    peak_bytes: int


def measure_command(command: Sequence[str]) -> Measurement:
    """Run a command to its end and measure it; its output is shown only if it fails.

    Raises:
        RuntimeError: the command's exit status is not 0.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        # wait4 gives this one child's peak memory; RUSAGE_CHILDREN would mix all of them.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            text = output.read().decode(errors="replace")
            raise RuntimeError(f"{command} ended with {process.returncode}:\n{text}")
    return Measurement(seconds, usage.ru_maxrss * 1024)


def measure_alternately(
    commands: dict[str, Sequence[str]], *, num_runs: int
) -> dict[str, Measurement]:
    """Median seconds and largest memory of each command, run in turns.

    In turns, so that a machine that is slow for a while is slow for all of them.
    """
    runs: dict[str, list[Measurement]] = {name: [] for name in commands}
    for _ in range(num_runs):
        for name, command in commands.items():
            runs[name].append(measure_command(command))
    return {
        name: Measurement(
            statistics.median(run.seconds for run in results),
            max(run.peak_bytes for run in results),
        )
        for name, results in runs.items()
    }


def describe_machine() -> str:
    """One line: processor count, architecture and the versions that matter."""
    names = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "typer")
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return (
        f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}, "
        + ", ".join(versions)
    )
