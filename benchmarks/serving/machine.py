"""The machine and the versions of the packages that affect the results."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("onnxruntime", "grpcio", "uvicorn", "httptools", "uvloop", "starlette")


def describe_machine() -> dict[str, object]:
    """Processors, how busy they were, and versions."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return {
        "cpus": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": versions,
    }
