"""Operators of domain ``dlzoo``: find the library of native kernels, check it, register it.

A model that uses such operators carries their bodies as ONNX functions, so it runs without the
library, too. Loading a library runs its code: none is ever taken from a bundle, or from anywhere
that the user did not name, but the one that was built beside the package.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dlzoo.errors import BundleError, NativeLibraryError
from dlzoo.runtime.bundle.bundle import Bundle, sha256_of_file
from dlzoo.runtime.onnx_reader.onnx_header import OnnxHeader
from dlzoo.runtime.session.installation import load_onnxruntime
from dlzoo.runtime.session.native_library import (
    BUILD_COMMAND,
    CUSTOM_DOMAIN,
    NATIVE_ABI_VERSION,
    NATIVE_LIBRARY_VARIABLE,
    library_file_problem,
    packaged_library_path,
)
from dlzoo.runtime.session.ort_error import one_line_reason

#: An operator of domain ``dlzoo`` runs by the library's kernel, or by its ONNX function.
Kernels = Literal["native", "function"]
#: What stands for a library's path: look in the usual places, or use none.
AUTO, OFF = "auto", "off"
#: The provider that the kernels are for; on any other one the functions run.
KERNEL_PROVIDER = "cpu"
_LIBRARY_SUFFIXES = {".so", ".dylib", ".dll"}


@dataclass(frozen=True, kw_only=True)
class NativeLibrary:
    """A library that was loaded and fits; ``instructions`` are the vectors that it chose."""

    path: Path
    origin: str
    instructions: str


def custom_ops_of(header: OnnxHeader) -> tuple[str, ...]:
    """The operators of domain ``dlzoo`` that a model uses, as ``dlzoo::Mish``."""
    prefix = f"{CUSTOM_DOMAIN}::"
    return tuple(sorted(op for op in header.num_nodes_by_op if op.startswith(prefix)))


def find_native_library(
    choice: str | Path = AUTO, *, bundle: Bundle | None = None
) -> NativeLibrary | None:
    """The library to use, loaded and checked; None where there is none, or none is wanted.

    Args:
        choice: its path; ``auto`` for the environment variable ``DLZOO_NATIVE_LIBRARY`` or else
            the one that was built beside the package; ``off`` for none.
        bundle: whose model it is for. A library inside its folder must be what the manifest says.

    Raises:
        BundleError: the library lies in the bundle, and is not listed there or was changed.
        NativeLibraryError: the library is missing, damaged, or does not fit this machine, this
            dlzoo or this ONNX Runtime.
    """
    origin = "named"
    if choice == AUTO:
        choice = os.environ.get(NATIVE_LIBRARY_VARIABLE, "")
        origin = NATIVE_LIBRARY_VARIABLE
    if choice == OFF:
        return None
    if not choice:
        path, origin = packaged_library_path(), "built beside the package"
        if not path.exists():
            return None
    else:
        path = Path(choice)
        if bundle is not None:
            _check_carried(path, bundle)
    return _load(path, origin)


def kernel_choices(
    header: OnnxHeader, provider: str, choice: str | Path, *, bundle: Bundle | None = None
) -> tuple[str | Path, ...]:
    """Every way in which a proof must run the operators of domain ``dlzoo`` on a provider.

    With the library and without it, where there is one and each operator has a body; a model
    without such operators has one way.

    Returns:
        What to give ``open_session`` as ``native_library``, one after the other.
    """
    ops = custom_ops_of(header)
    if not ops or provider != KERNEL_PROVIDER:
        return (OFF,)
    library = find_native_library(choice, bundle=bundle)
    if library is None:
        return (OFF,)
    return (library.path, OFF) if set(ops) <= set(header.functions) else (library.path,)


def carried_libraries(bundle: Bundle) -> tuple[str, ...]:
    """Shared libraries among a bundle's files; none is loaded unless the user names it."""
    return tuple(
        name
        for name in sorted(bundle.manifest.files)
        if _LIBRARY_SUFFIXES.intersection(Path(name).suffixes)
    )


def register_native_library(options: Any, library: NativeLibrary) -> None:
    """Make a library's kernels known to the sessions opened with these SessionOptions.

    Raises:
        NativeLibraryError: ONNX Runtime does not take it.
    """
    try:
        options.register_custom_ops_library(str(library.path.resolve()))
    except Exception as error:
        raise NativeLibraryError(
            f"ONNX Runtime {load_onnxruntime().__version__} does not take the native library "
            f"{library.path}: {one_line_reason(error)}. Build it again: {BUILD_COMMAND}"
        ) from None


def check_bodies(path: Path, header: OnnxHeader, kernels: NativeLibrary | None) -> None:
    """Make sure that every operator of domain ``dlzoo`` has something to run by.

    Raises:
        BundleError: a model without a function for one, and no library is used.
    """
    missing = set(custom_ops_of(header)) - set(header.functions)
    if missing and kernels is None:
        raise BundleError(
            f"{path} has no function body for {', '.join(sorted(missing))}, and no native library "
            f"is used. Build one: {BUILD_COMMAND}, or export the model again."
        )


def kernels_used(ops: Iterable[str], nodes: Iterable[tuple[str, str]]) -> dict[str, Kernels]:
    """Say of each operator how it runs, by the nodes that ONNX Runtime has placed.

    Args:
        ops: those of the model, as ``dlzoo::Mish``.
        nodes: domain and operator of every node of the open session.
    """
    placed = {f"{domain}::{op_type}" for domain, op_type in nodes}
    return {op: "native" if op in placed else "function" for op in ops}


def describe_kernels(used: Mapping[str, Kernels]) -> Kernels | None:
    """One word for a session: ``native`` where a kernel runs; None without such operators."""
    if not used:
        return None
    return "native" if "native" in used.values() else "function"


def _check_carried(path: Path, bundle: Bundle) -> None:
    """Make sure that a library in a bundle's folder is the one that the manifest lists."""
    folder, file = bundle.path.resolve(), path.resolve()
    if not file.is_relative_to(folder) or not file.is_file():
        return
    name = file.relative_to(folder).as_posix()
    expected = bundle.manifest.files.get(name)
    if expected is None:
        raise BundleError(
            f"{bundle.path}: the library {name} is not listed in manifest.json, and is not loaded. "
            f"Build your own: {BUILD_COMMAND}"
        )
    if sha256_of_file(file) != expected:
        raise BundleError(
            f"{bundle.path}: the library {name} was changed, and is not loaded. "
            f"Copy the whole bundle again, or build your own: {BUILD_COMMAND}"
        )


def _load(path: Path, origin: str) -> NativeLibrary:
    if not path.is_file():
        raise NativeLibraryError(
            f"Native library {path} ({origin}) does not exist, expected a file built with "
            f'"{BUILD_COMMAND}". Build it, or give "{OFF}" to run the ONNX functions.'
        )
    problem = library_file_problem(path)
    if problem:
        raise NativeLibraryError(
            f"Native library {path} ({origin}) {problem}. Build it here: {BUILD_COMMAND}"
        )
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise NativeLibraryError(
            f"Native library {path} ({origin}) does not load: {reason}. "
            f"Build it here: {BUILD_COMMAND}"
        ) from None
    _check_versions(library, path, origin)
    library.dlzoo_native_instructions.restype = ctypes.c_char_p
    instructions = library.dlzoo_native_instructions().decode("ascii", "replace")
    return NativeLibrary(path=path, origin=origin, instructions=instructions)


def _check_versions(library: ctypes.CDLL, path: Path, origin: str) -> None:
    try:
        abi_version = library.dlzoo_native_abi_version()
        api_version = library.dlzoo_native_ort_api_version()
    except AttributeError:
        raise NativeLibraryError(
            f"Native library {path} ({origin}) is not one of dlzoo: it has no function "
            f"dlzoo_native_abi_version. Build one: {BUILD_COMMAND}"
        ) from None
    if abi_version != NATIVE_ABI_VERSION:
        raise NativeLibraryError(
            f"Native library {path} ({origin}) has ABI version {abi_version}, this dlzoo expects "
            f"{NATIVE_ABI_VERSION}. Build it again: {BUILD_COMMAND}"
        )
    # Version 1.N knows the C API up to version N.
    installed = load_onnxruntime().__version__
    major, minor, *_ = (int(number) for number in installed.split(".")[:2])
    if (major, minor) < (1, api_version):
        raise NativeLibraryError(
            f"Native library {path} ({origin}) needs ONNX Runtime 1.{api_version} or later, "
            f"{installed} is installed. Update it, or build the library again: {BUILD_COMMAND}"
        )
