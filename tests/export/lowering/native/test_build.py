"""The kernels build with whatever C++ compiler there is, or one line says what is missing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlzoo.errors import NativeLibraryError, StorageError
from dlzoo.export.lowering.native.build import SOURCES_FOLDER, build_library, find_compiler
from dlzoo.runtime.session.native_library import NATIVE_ORT_API_VERSION, library_file_problem


def test_the_command_builds_a_library_and_says_where(
    native_library: Path, tmp_path: Path
) -> None:
    output = tmp_path / "kernels.so"
    command = [sys.executable, "-m", "dlzoo.export.lowering.native", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Built {output} (")
    assert f"DLZOO_NATIVE_LIBRARY={output}" in done.stdout
    assert library_file_problem(output) == ""
    assert output.read_bytes() == native_library.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.so"]


def test_the_library_needs_nothing_but_the_c_library(native_library: Path) -> None:
    if not shutil.which("readelf"):
        pytest.skip("readelf is not installed")
    said = subprocess.check_output(["readelf", "-d", native_library], text=True)
    needed = {line.split("[")[1].rstrip("]") for line in said.splitlines() if "NEEDED" in line}
    assert needed <= {"libc.so.6", "libm.so.6"}, needed


def test_the_library_holds_no_path_of_the_builder(native_library: Path) -> None:
    assert str(SOURCES_FOLDER).encode() not in native_library.read_bytes()


def test_building_needs_no_other_package() -> None:
    code = (
        "import sys, dlzoo.export.lowering.native.build as build; "
        "print({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules))"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said == "set()\n"


def test_no_compiler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NativeLibraryError) as caught:
        build_library(tmp_path / "kernels.so")
    assert str(caught.value) == (
        "No C++ compiler was found (looked for g++, c++ and clang++), expected one that knows "
        "C++17. Install g++, or set CXX to a compiler; without the kernels their operators run "
        "as ONNX functions."
    )
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NativeLibraryError, match=r"looked for no-such-compiler\)"):
        find_compiler()
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_does_not_compile_is_one_line(
    native_library: Path, tmp_path: Path
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(SOURCES_FOLDER, sources)
    with (sources / "mish.cc").open("a") as file:
        file.write("#error of mine\n")
    with pytest.raises(NativeLibraryError) as caught:
        build_library(tmp_path / "kernels.so", sources=sources)
    message = str(caught.value)
    assert "could not build the native kernels: mish.cc:" in message and "of mine" in message
    assert "\n" not in message
    assert not (tmp_path / "kernels.so").exists()


def test_a_slot_in_another_place_does_not_compile(
    native_library: Path, tmp_path: Path
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(SOURCES_FOLDER, sources)
    header = sources / "onnxruntime_abi.h"
    header.write_text(header.read_text().replace("unused_52[9]", "unused_52[10]"))
    with pytest.raises(NativeLibraryError, match="GetDimensions is in another slot"):
        build_library(tmp_path / "kernels.so", sources=sources)


def test_an_output_in_a_missing_folder_is_one_line(
    native_library: Path, tmp_path: Path
) -> None:
    output = tmp_path / "missing" / "kernels.so"
    with pytest.raises(
        StorageError, match=r"cannot be written: No such file .* --output FILE"
    ):
        build_library(output)
    command = [sys.executable, "-m", "dlzoo.export.lowering.native", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("dlzoo: ") and len(done.stderr.splitlines()) == 1


def test_every_custom_op_field_exists_in_the_api_that_is_asked_for() -> None:
    text = (SOURCES_FOLDER / "library.cc").read_text()
    assert f"kCustomOpVersion = {NATIVE_ORT_API_VERSION};" in text
