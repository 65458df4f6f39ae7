"""Find the installed ONNX Runtime, and check that it is the only one and complete."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module, metadata
from types import ModuleType

from dlzoo.errors import InstallationError

#: Packages that all install the one folder ``onnxruntime``: the last one written wins.
ONNXRUNTIME_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-silicon",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)
#: The CUDA packages' own pip extras, which bring the CUDA and cuDNN libraries.
_EXTRAS = {"onnxruntime-gpu": "[cuda,cudnn]"}


def installed_onnxruntimes(path: Sequence[str] | None = None) -> dict[str, str]:
    """Package name -> version of every ONNX Runtime that package metadata know of.

    Args:
        path: folders to look in; the interpreter's own if None.
    """
    found: dict[str, str] = {}
    for distribution in metadata.distributions(path=sys.path if path is None else list(path)):
        # Metadata without a name is what a broken uninstall leaves.
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name in ONNXRUNTIME_PACKAGES:
            found.setdefault(name, distribution.version)
    return dict(sorted(found.items()))


def check_installation(path: Sequence[str] | None = None) -> str:
    """Make sure that exactly one ONNX Runtime package is installed, and return its name.

    pip installs two of them side by side without complaint; they overwrite each other's files.

    Args:
        path: folders to look in; the interpreter's own if None.

    Raises:
        InstallationError: there is none, or more than one.
    """
    found = installed_onnxruntimes(path)
    if not found:
        raise InstallationError(
            "No ONNX Runtime is installed, expected exactly one. "
            'Run: pip install "dlzoo[cpu]", or on a machine with an NVIDIA GPU: '
            'pip install "dlzoo[gpu]"'
        )
    if len(found) > 1:
        keep = next((name for name in found if name != "onnxruntime"), "onnxruntime")
        raise InstallationError(
            f"{' and '.join(found)} are both installed and overwrite each other's files, expected "
            f"exactly one. Run: pip uninstall -y {' '.join(found)} && "
            f'pip install "{keep}{_EXTRAS.get(keep, "")}"'
        )
    return next(iter(found))


@cache
def load_onnxruntime() -> ModuleType:
    """Import onnxruntime, quiet on stderr, with the CUDA libraries of pip packages in reach.

    Raises:
        InstallationError: none or two are installed, or the one that is does not load.
    """
    package = check_installation()
    fix = (
        f"Run: pip uninstall -y {package} && "
        f'pip install --no-cache-dir "{package}{_EXTRAS.get(package, "")}"'
    )
    try:
        onnxruntime = import_module("onnxruntime")
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise InstallationError(f"{package} does not load: {reason}. {fix}") from None
    if not hasattr(onnxruntime, "InferenceSession"):
        raise InstallationError(
            f"{package} is installed, but its files are gone: another ONNX Runtime package was "
            f"removed after it. {fix}"
        )
    # What goes wrong comes back as an exception; the C++ log would only repeat it on stderr.
    onnxruntime.set_default_logger_severity(4)
    preload_cuda_libraries(onnxruntime)
    return onnxruntime


def preload_cuda_libraries(onnxruntime: ModuleType) -> list[str]:
    """Load the CUDA and cuDNN libraries that pip installed; returns what could not be loaded.

    Nothing happens for a build without CUDA.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it misses
        onnxruntime.preload_dlls()
    return [line for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
