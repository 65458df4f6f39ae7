"""Build the library of native kernels with the machine's own C++ compiler.

The result runs on every processor of its architecture: vectors are chosen when it is loaded, so
nothing here asks for the builder's own processor.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dlzoo.errors import NativeLibraryError, StorageError
from dlzoo.runtime.session.native_library import (
    NATIVE_ABI_VERSION,
    NATIVE_LIBRARY_VARIABLE,
    NATIVE_ORT_API_VERSION,
    packaged_library_path,
)

SOURCES_FOLDER = Path(__file__).parent
_SOURCES = ("library.cc", "mish.cc")
#: -ffast-math would drop NaN and Inf, and turn denormals off in the whole process. Errors of
#: arithmetic are not looked at, which is what lets the compiler use vectors.
_FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *("-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-fno-trapping-math"),
)
#: Nothing of the compiler's own libraries is needed where the result runs.
_LINUX_FLAGS = ("-static-libgcc", "-Wl,--as-needed", "-Wl,-z,defs", "-s")


def find_compiler() -> str:
    """The C++ compiler: ``CXX``, else g++, c++ or clang++.

    Raises:
        NativeLibraryError: there is none.
    """
    asked = os.environ.get("CXX", "")
    for name in [asked] if asked else ["g++", "c++", "clang++"]:
        found = shutil.which(name)
        if found:
            return found
    raise NativeLibraryError(
        f"No C++ compiler was found (looked for {asked or 'g++, c++ and clang++'}), expected one "
        "that knows C++17. Install g++, or set CXX to a compiler; without the kernels their "
        "operators run as ONNX functions."
    )


def build_library(
    output: Path | None = None,
    *,
    sources: Path = SOURCES_FOLDER,
    abi_version: int = NATIVE_ABI_VERSION,
    ort_api_version: int = NATIVE_ORT_API_VERSION,
) -> Path:
    """Compile the kernels; the file appears whole or not at all.

    Args:
        output: the file to write; beside the sources if None.
        sources: the folder with the C++ code.
        abi_version: what the library says of itself.
        ort_api_version: what it asks of ONNX Runtime.

    Returns:
        The file that was written.

    Raises:
        NativeLibraryError: there is no compiler, or it fails.
        StorageError: the file cannot be written.
    """
    target = output or packaged_library_path()
    command = [
        find_compiler(),
        *_FLAGS,
        *(_LINUX_FLAGS if sys.platform == "linux" else ()),
        f"-DDLZOO_NATIVE_ABI_VERSION={abi_version}",
        f"-DDLZOO_ORT_API_VERSION={ort_api_version}",
        *_SOURCES,
    ]
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".native-") as folder:
            built = Path(folder) / target.name
            _run([*command, "-o", str(built.resolve())], sources)
            built.replace(target)
    except OSError as error:
        raise StorageError(
            f"{target} cannot be written: {error.strerror or error}. Name another file with "
            f"--output FILE and set {NATIVE_LIBRARY_VARIABLE}=FILE."
        ) from None
    return target


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
        reason = (lines or done.stderr.splitlines() or ["no reason given"])[0]
        raise NativeLibraryError(
            f"{Path(command[0]).name} could not build the native kernels: {reason[:300]}. Run it "
            f"yourself to see all: cd {folder} && {shlex.join(command)}"
        )
