"""Processor time, memory and mapped libraries of a process and its descendants, on Linux."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """List a process and its current descendants."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            stat = _stat(int(folder.name))
            if stat:
                children.setdefault(int(stat[1]), []).append(int(folder.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, parent, …; none if it has ended."""
    try:
        # The second field, the name in brackets, may hold spaces and brackets.
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes, all their threads, in steps of 10 ms each."""
    ticks = 0
    for pid in pids:
        stat = _stat(pid)
        if stat:
            ticks += int(stat[11]) + int(stat[12])
    return ticks / _TICKS_PER_S


def resident_bytes(pids: list[int]) -> int:
    """Sum the resident memory; pages that two of the processes share count twice."""
    total = 0
    for pid in pids:
        try:
            lines = (_PROC / str(pid) / "status").read_text().splitlines()
        except OSError:
            continue
        total += sum(
            int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")
        )
    return total


def has_torch(pids: list[int]) -> bool:
    """Whether a library of PyTorch is mapped into one of these processes."""
    for pid in pids:
        try:
            maps = (_PROC / str(pid) / "maps").read_text(errors="replace")
        except OSError:
            continue
        if "libtorch" in maps or "/site-packages/torch/" in maps:
            return True
    return False


def end_tree(process: subprocess.Popen[bytes], number: signal.Signals, seconds: float) -> None:
    """Ask a process to stop; kill it and its descendants if they are still running after a while."""
    pids = tree(process.pid)
    if process.poll() is None:
        process.send_signal(number)
    end = time.monotonic() + seconds
    while time.monotonic() < end and (process.poll() is None or _alive(pids)):
        time.sleep(0.05)
    for pid in _alive(pids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if (stat := _stat(pid)) and stat[0] != "Z"]
