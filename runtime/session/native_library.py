"""The library of native kernels for domain ``dlzoo``: its name, its ABI, and what file it is.

No file is loaded here: whether one could be is read from its header. numpy only, as bundle.py.
"""

from __future__ import annotations

import platform
import struct
import sys
from pathlib import Path

#: The domain of functions and custom operators of this project.
CUSTOM_DOMAIN = "dlzoo"
#: Rises with every change of what a library exports or computes. The C++ code is built with it.
NATIVE_ABI_VERSION = 1
#: The API version of ONNX Runtime 1.18, the first with all that the kernels use.
NATIVE_ORT_API_VERSION = 18
#: Names the library to use, or ``off``.
NATIVE_LIBRARY_VARIABLE = "DLZOO_NATIVE_LIBRARY"
BUILD_COMMAND = "python -m dlzoo.export.lowering.native"

#: With the ABI's version, as is the custom; a file that ended with .so would count as a Python
#: module of the package, too.
_SUFFIXES = {
    "darwin": f".{NATIVE_ABI_VERSION}.dylib",
    "win32": f"-{NATIVE_ABI_VERSION}.dll",
}
_ELF_SUFFIX = f".so.{NATIVE_ABI_VERSION}"
#: e_machine by what platform.machine() says. Source: System V ABI, elf.h.
_ELF_MACHINES = {
    "x86_64": 62,
    "amd64": 62,
    "aarch64": 183,
    "arm64": 183,
    "i386": 3,
    "i686": 3,
    "armv7l": 40,
    "ppc64le": 21,
    "riscv64": 243,
    "s390x": 22,
}
_ELF_HEADER_BYTES, _ELF_SHARED_OBJECT, _PT_LOAD = 64, 3, 1


def packaged_library_path() -> Path:
    """The path at which a build puts the library: beside its sources in the package."""
    name = f"libdlzoo_native{_SUFFIXES.get(sys.platform, _ELF_SUFFIX)}"
    return Path(__file__).parents[2] / "export" / "lowering" / "native" / name


def library_file_problem(path: Path) -> str:
    """The reason why a file cannot be a shared library for this machine; empty where it can.

    Reads the header alone. A file that is cut off would end the process when it is loaded (its
    pages are mapped), so the size that the header promises is compared, too. Outside Linux, only
    whether there is anything to read.

    Source: System V ABI, chapter 4, "Object Files".
    """
    try:
        with path.open("rb") as file:
            header = file.read(_ELF_HEADER_BYTES)
            if sys.platform != "linux":
                return "" if header else "is empty"
            problem = _elf_problem(header)
            if problem:
                return problem
            offset, size, count = _program_headers(header)
            file_bytes = file.seek(0, 2)
            file.seek(min(offset, file_bytes))
            table = file.read(size * count)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if len(table) < size * count or _end_of_segments(table, size) > file_bytes:
        return f"is cut off after {file_bytes} bytes"
    return ""


def _elf_problem(header: bytes) -> str:
    if header[:4] != b"\x7fELF":
        return f"is not a shared library: it begins with {header[:4]!r}, expected b'\\x7fELF'"
    if len(header) < _ELF_HEADER_BYTES:
        return f"is cut off after {len(header)} bytes"
    if header[4] != 2 or header[5] != (1 if sys.byteorder == "little" else 2):
        return "is built for another kind of machine: 32 bits, or the other byte order"
    kind, machine = struct.unpack_from("=HH", header, 16)
    here = platform.machine()
    known = _ELF_MACHINES.get(here.lower())
    if known is not None and machine != known:
        built_for = next((n for n, m in _ELF_MACHINES.items() if m == machine), None)
        return f"is built for {built_for or f'ELF machine {machine}'}, this machine is {here}"
    if kind != _ELF_SHARED_OBJECT:
        return (
            f"is not a shared library: its ELF type is {kind}, expected {_ELF_SHARED_OBJECT}"
        )
    return ""


def _program_headers(header: bytes) -> tuple[int, int, int]:
    """The table of segments: its place, the size of an entry, and the number of entries."""
    (offset,) = struct.unpack_from("=Q", header, 32)
    size, count = struct.unpack_from("=HH", header, 54)
    return offset, size, count


def _end_of_segments(table: bytes, size: int) -> int:
    """The first byte after what the loader maps."""
    ends = [0]
    for start in range(0, len(table), max(size, 1)):
        if len(table) - start < 40:
            break
        kind, _, offset, _, _, file_size = struct.unpack_from("=IIQQQQ", table, start)
        if kind == _PT_LOAD:
            ends.append(offset + file_size)
    return max(ends)
