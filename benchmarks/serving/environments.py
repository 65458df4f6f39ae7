"""Packages of other servers, each in its own virtual environment, which is made once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

ONNXRUNTIME = f"onnxruntime=={version('onnxruntime')}"
_PIP = ("-m", "pip", "--disable-pip-version-check", "--retries=0", "--quiet")
_INSTALL_TIMEOUT_S = 1800


class NotRunError(Exception):
    """A server cannot be installed or started here; the message gives the reason."""


def environment_with(folder: Path, *requirements: str) -> Path:
    """Make a virtual environment with these packages; return its Python.

    Raises:
        NotRunError: they cannot be installed.
    """
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(python), *_PIP, "install", *requirements)
        (folder / "complete").touch()
    return python


def unpacked_wheel(folder: Path, requirement: str) -> Path:
    """Unpack a wheel into a folder, without its dependencies.

    Raises:
        NotRunError: it cannot be had.
    """
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run(sys.executable, *_PIP, "download", "--no-deps", "-d", str(folder), requirement)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()
        (folder / "complete").touch()
    return folder


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotRunError(f"cannot be installed: {reason}")
