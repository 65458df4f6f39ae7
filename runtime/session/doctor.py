"""Find out what this machine can run, and how to fix what it cannot."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from dlzoo.errors import InstallationError, NativeLibraryError
from dlzoo.runtime.session.cores import num_cores
from dlzoo.runtime.session.custom_ops import find_native_library
from dlzoo.runtime.session.installation import (
    check_installation,
    load_onnxruntime,
    preload_cuda_libraries,
)
from dlzoo.runtime.session.native_library import BUILD_COMMAND
from dlzoo.runtime.session.providers import short_name
from dlzoo.runtime.session.working_providers import why_provider_fails

#: CPU features that ONNX Runtime's kernels choose between.
_CPU_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_tile",
    "asimd",
    "sve",
)
#: The driver release from which a CUDA major version runs.
#: Source: CUDA Toolkit release notes, table "CUDA Toolkit and minimum required driver version".
_MIN_DRIVER = {12: "525", 13: "580"}
_LOW_DISK_BYTES = 2 * 2**30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: how it is, and the command or step that fixes it."""

    subject: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


def diagnose(cache_dir: Path | None = None) -> list[Finding]:
    """Look at everything that an export, a proof or a session needs on this machine.

    Args:
        cache_dir: where weights are kept; ``DLZOO_HOME`` or the platform's cache folder if None.
    """
    findings = [_python(), _processor(), *_packages()]
    driver = _cuda_driver()
    runtime = _onnxruntime()
    findings.append(runtime)
    if runtime.status != "fail":
        onnxruntime = load_onnxruntime()
        findings += [_gpu(onnxruntime, driver), *_providers(onnxruntime, driver)]
        findings.append(_native_kernels())
    findings.append(_cache(cache_dir or default_cache_dir()))
    return findings


def default_cache_dir() -> Path:
    """``DLZOO_HOME``, or the platform's folder for caches."""
    home = os.environ.get("DLZOO_HOME")
    if home:
        return Path(home)
    try:
        from platformdirs import user_cache_path
    except ImportError:  # an installation that only verifies and serves
        return Path.home() / ".cache" / "dlzoo"
    return user_cache_path("dlzoo")


def _python() -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding(subject="Python", status="ok", detail=detail)


def _processor() -> Finding:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        text = ""
    words = set(text.split())
    flags = [flag for flag in _CPU_FLAGS if flag in words]
    detail = f"{num_cores()} cores{' with ' + ', '.join(flags) if flags else ''}"
    return Finding(subject="CPU", status="ok", detail=detail)


def _packages() -> Iterator[Finding]:
    for name, use in (("torch", "export"), ("onnx", "export"), ("onnxscript", "export")):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(
                subject=name,
                status="warn",
                detail=f"not installed: {use} does not work, verify and classify do",
                fix=f"pip install {name}",
            )
        else:
            yield Finding(subject=name, status="ok", detail=version)


def _onnxruntime() -> Finding:
    try:
        package = check_installation()
        onnxruntime = load_onnxruntime()
    except InstallationError as error:
        detail, _, fix = str(error).partition(" Run: ")
        return Finding(subject="onnxruntime", status="fail", detail=detail, fix=fix)
    built_for = f", built for CUDA {onnxruntime.cuda_version}" if _cuda_of(onnxruntime) else ""
    detail = f"{package} {onnxruntime.__version__}{built_for}"
    return Finding(subject="onnxruntime", status="ok", detail=detail)


def _cuda_of(onnxruntime: Any) -> str:
    return getattr(onnxruntime, "cuda_version", "") or ""


def _cuda_driver() -> tuple[int, int] | None:
    """The newest CUDA version that the installed NVIDIA driver runs; None without a driver."""
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    number = ctypes.c_int(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return number.value // 1000, number.value % 1000 // 10


def _gpu(onnxruntime: Any, driver: tuple[int, int] | None) -> Finding:
    """Driver against the CUDA that ONNX Runtime was built for."""
    built_for = _cuda_of(onnxruntime)
    if driver is None:
        wants_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        return Finding(
            subject="NVIDIA driver",
            status="warn" if wants_gpu else "ok",
            detail="none: models run on the CPU",
            fix="install the NVIDIA driver" if wants_gpu else "",
        )
    detail = f"runs CUDA up to {driver[0]}.{driver[1]}{_gpu_names()}"
    if not built_for:
        return Finding(
            subject="NVIDIA driver",
            status="warn",
            detail=f"{detail}; the installed onnxruntime does not use it",
            fix='pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"',
        )
    needed = int(built_for.split(".")[0])
    if driver[0] < needed:
        return Finding(
            subject="NVIDIA driver",
            status="fail",
            detail=f"{detail}, too old: onnxruntime-gpu is built for CUDA {built_for}",
            fix=f"update the NVIDIA driver to {_MIN_DRIVER.get(needed, 'a newer release')} or later",
        )
    return Finding(subject="NVIDIA driver", status="ok", detail=detail)


def _gpu_names() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    asked = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f": {'; '.join(said.stdout.strip().splitlines())}"


def _providers(onnxruntime: Any, driver: tuple[int, int] | None) -> Iterator[Finding]:
    """Open a model of one node on every provider that the build has."""
    for ort_name in onnxruntime.get_available_providers():
        if ort_name == "AzureExecutionProvider":  # runs models elsewhere, needs an account
            continue
        subject = f"provider {short_name(ort_name)}"
        reason = why_provider_fails(onnxruntime, ort_name)
        if not reason:
            yield Finding(subject=subject, status="ok", detail="opens and runs a model")
            continue
        missing = preload_cuda_libraries(onnxruntime) if "CUDA" in ort_name else []
        if missing:
            reason = "; ".join(line.split(":")[0] for line in missing)
        needed = driver is not None and "CUDA" in ort_name
        yield Finding(
            subject=subject,
            status="fail" if needed else "warn",
            detail=f"does not run: {reason}",
            fix='pip install "onnxruntime-gpu[cuda,cudnn]"' if missing else "",
        )


def _native_kernels() -> Finding:
    """The library of kernels for domain ``dlzoo``, if there is one, and whether it can be used."""
    subject = "native kernels"
    try:
        library = find_native_library()
    except NativeLibraryError as error:
        return Finding(subject=subject, status="fail", detail=str(error))
    if library is None:
        detail = f"none, ONNX functions do their work; to build them: {BUILD_COMMAND}"
        return Finding(subject=subject, status="ok", detail=detail)
    detail = f"{library.path.name} ({library.origin}), {library.instructions}"
    return Finding(subject=subject, status="ok", detail=detail)


def _cache(folder: Path) -> Finding:
    """Whether weights can be kept, and how much room there is."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free_bytes = shutil.disk_usage(existing).free
    home = Path.home()
    shown = f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)
    detail = f"{shown}, {free_bytes / 2**30:.1f} GiB free"
    if not os.access(existing, os.W_OK) or not existing.is_dir():
        return Finding(
            subject="weights cache",
            status="fail",
            detail=f"{detail}, cannot be written",
            fix="set DLZOO_HOME to a folder that you may write to",
        )
    if free_bytes < _LOW_DISK_BYTES:
        return Finding(
            subject="weights cache",
            status="warn",
            detail=f"{detail}: too little for large models",
            fix="free some space, or set DLZOO_HOME to a folder on another disk",
        )
    return Finding(subject="weights cache", status="ok", detail=detail)
