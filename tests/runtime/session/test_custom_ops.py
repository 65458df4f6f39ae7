"""The library of native kernels is found where the user says, checked, and never guessed at."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dlzoo.errors import BundleError, NativeLibraryError
from dlzoo.export.lowering.native.build import build_library, find_compiler
from dlzoo.runtime.session import custom_ops
from dlzoo.runtime.session.custom_ops import find_native_library
from dlzoo.runtime.session.native_library import NATIVE_LIBRARY_VARIABLE, library_file_problem
from dlzoo.runtime.session.session import open_session
from tests.support.native_kernels import SPECIAL_VALUES, mish_model

BUILD = "python -m dlzoo.export.lowering.native"
X = np.array([-1.0, 0.0, 2.0], np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return mish_model(tmp_path / "mish.onnx")


@pytest.fixture
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place beside the package where nothing was built, and no variable set."""
    place = tmp_path / "package" / "libdlzoo_native.so"
    place.parent.mkdir()
    monkeypatch.setattr(custom_ops, "packaged_library_path", lambda: place)
    monkeypatch.delenv(NATIVE_LIBRARY_VARIABLE, raising=False)
    return place


def refusal(library: Path, model: Path) -> str:
    """The one line with which a session refuses a library."""
    with pytest.raises(NativeLibraryError) as caught:
        open_session(model, native_library=library)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 2
    return message.replace(str(library), "LIB")


# --- where it is looked for ----------------------------------------------------------------


def test_without_any_library_the_function_runs(model: Path, nothing_built: Path) -> None:
    assert find_native_library() is None
    session = open_session(model)
    assert session.custom_ops == {"dlzoo::Mish": "function"}
    np.testing.assert_allclose(
        session.run({"x": X})["y_0"], [-0.30340146, 0, 1.9439590], rtol=1e-6
    )


def test_the_argument_comes_before_the_variable_and_that_before_the_package(
    nothing_built: Path, native_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(native_library, nothing_built)
    found = find_native_library()
    assert found is not None and found.path == nothing_built
    assert found.origin == "built beside the package"
    assert found.instructions in ("avx512", "avx2", "baseline")

    named, given = tmp_path / "named.so", tmp_path / "given.so"
    shutil.copy(native_library, named)
    shutil.copy(native_library, given)
    monkeypatch.setenv(NATIVE_LIBRARY_VARIABLE, str(named))
    found = find_native_library()
    assert found is not None and (found.path, found.origin) == (named, "DLZOO_NATIVE_LIBRARY")
    found = find_native_library(given)
    assert found is not None and (found.path, found.origin) == (given, "named")


def test_off_runs_the_function_whatever_there_is(
    model: Path, nothing_built: Path, native_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(native_library, nothing_built)
    assert open_session(model).custom_ops == {"dlzoo::Mish": "native"}
    assert open_session(model, native_library="off").custom_ops == {"dlzoo::Mish": "function"}
    monkeypatch.setenv(NATIVE_LIBRARY_VARIABLE, "off")
    assert open_session(model).custom_ops == {"dlzoo::Mish": "function"}


def test_both_paths_agree_within_the_noise(model: Path, native_library: Path) -> None:
    answers = [
        open_session(model, optimization=level, native_library=choice).run(
            {"x": SPECIAL_VALUES}
        )["y_0"]
        for choice in (native_library, "off")
        for level in ("disabled", "all")
    ]
    for answer in answers[1:]:
        # At most the steps that each may be wrong by: see tests/export/lowering/native.
        np.testing.assert_array_max_ulp(answers[0], answer, maxulp=8)


def test_a_model_without_custom_operators_loads_no_library(
    tmp_path: Path, nothing_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    from onnx import helper

    x, y = (helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, ir_version=10), tmp_path / "relu.onnx")
    monkeypatch.setenv(NATIVE_LIBRARY_VARIABLE, "/nowhere/at/all.so")
    assert open_session(tmp_path / "relu.onnx").custom_ops == {}


def test_a_node_without_body_and_library_is_one_line(
    tmp_path: Path, nothing_built: Path, native_library: Path
) -> None:
    bare = mish_model(tmp_path / "bare.onnx", with_body=False)
    with pytest.raises(BundleError) as caught:
        open_session(bare)
    assert str(caught.value) == (
        f"{bare} has no function body for dlzoo::Mish, and no native library is used. Build one: "
        f"{BUILD}, or export the model again."
    )
    session = open_session(bare, native_library=native_library)
    assert session.custom_ops == {"dlzoo::Mish": "native"}


# --- what is wrong with it -----------------------------------------------------------------


def test_a_missing_library(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(Path("/nowhere/lib.so"), model) == (
        f'Native library LIB (named) does not exist, expected a file built with "{BUILD}". '
        'Build it, or give "off" to run the ONNX functions.'
    )
    monkeypatch.setenv(NATIVE_LIBRARY_VARIABLE, "/nowhere/lib.so")
    with pytest.raises(NativeLibraryError, match=r"/lib.so \(DLZOO_NATIVE_LIBRARY\) does not"):
        open_session(model)


def test_a_folder_in_place_of_a_library(model: Path, tmp_path: Path) -> None:
    assert "does not exist, expected a file" in refusal(tmp_path, model)


def test_a_text_file(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "lib.so"
    text.write_text("INPUT(libm.so)\n")  # what a linker script looks like
    assert refusal(text, model) == (
        "Native library LIB (named) is not a shared library: it begins with b'INPU', expected "
        f"b'\\x7fELF'. Build it here: {BUILD}"
    )
    text.write_bytes(b"")
    assert "is not a shared library: it begins with b''" in refusal(text, model)


def elf(native_library: Path, offset: int, layout: str, *values: int) -> bytearray:
    data = bytearray(native_library.read_bytes())
    struct.pack_into(layout, data, offset, *values)
    return data


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF headers")


@linux_only
@pytest.mark.parametrize(
    ("offset", "layout", "value", "said"),
    [
        (18, "=H", 183, "is built for aarch64, this machine is x86_64"),
        (18, "=H", 9999, "is built for ELF machine 9999, this machine is x86_64"),
        (4, "=B", 1, "is built for another kind of machine: 32 bits, or the other byte order"),
        (5, "=B", 2, "is built for another kind of machine: 32 bits, or the other byte order"),
        (16, "=H", 2, "is not a shared library: its ELF type is 2, expected 3"),
    ],
)
def test_another_architecture(
    native_library: Path,
    model: Path,
    tmp_path: Path,
    offset: int,
    layout: str,
    value: int,
    said: str,
) -> None:
    wrong = tmp_path / "lib.so"
    wrong.write_bytes(elf(native_library, offset, layout, value))
    if "this machine is x86_64" in said:
        import platform

        said = said.replace("x86_64", platform.machine())
        if platform.machine() in ("aarch64", "arm64") and value == 183:
            pytest.skip("183 is this machine")
    assert refusal(wrong, model) == (
        f"Native library LIB (named) {said}. Build it here: {BUILD}"
    )


@linux_only
@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.7])
def test_a_library_that_is_cut_off_does_not_end_the_process(
    native_library: Path, model: Path, tmp_path: Path, share: float
) -> None:
    data = native_library.read_bytes()
    cut = tmp_path / "lib.so"
    cut.write_bytes(data[: int(len(data) * share)])
    assert f"is cut off after {int(len(data) * share)} bytes" in refusal(cut, model)


@linux_only
def test_damaged_headers_never_end_the_process(
    native_library: Path, model: Path, tmp_path: Path
) -> None:
    """Whatever the first bytes say, the header check answers; it never crashes."""
    rng = np.random.default_rng(0)
    data = native_library.read_bytes()
    path = tmp_path / "lib.so"
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, 64, 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        assert isinstance(library_file_problem(path), str)


def test_another_abi_version(native_library: Path, model: Path, tmp_path: Path) -> None:
    other = build_library(tmp_path / "lib.so", abi_version=7)
    assert refusal(other, model) == (
        "Native library LIB (named) has ABI version 7, this dlzoo expects 1. Build it again: "
        f"{BUILD}"
    )


def test_an_api_that_onnxruntime_does_not_have_yet(
    native_library: Path, model: Path, tmp_path: Path
) -> None:
    import onnxruntime

    newer = build_library(tmp_path / "lib.so", ort_api_version=9999)
    assert refusal(newer, model) == (
        "Native library LIB (named) needs ONNX Runtime 1.9999 or later, "
        f"{onnxruntime.__version__} is installed. Update it, or build the library again: {BUILD}"
    )
    # Without dlzoo around it, the library itself refuses, and prints nothing.
    code = (
        "import sys, onnxruntime as o\n"
        "try:\n    o.SessionOptions().register_custom_ops_library(sys.argv[1])\n"
        "except Exception as e:\n    print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code, newer], capture_output=True, text=True)
    needed = f"need ONNX Runtime 1.9999 or later, this is {onnxruntime.__version__}"
    assert needed in done.stdout and done.stderr == ""


def test_a_library_of_something_else(
    native_library: Path, model: Path, tmp_path: Path
) -> None:
    source, other = tmp_path / "other.cc", tmp_path / "lib.so"
    source.write_text("int answer() { return 42; }\n")
    subprocess.run([find_compiler(), "-shared", "-fPIC", source, "-o", other], check=True)
    assert refusal(other, model) == (
        "Native library LIB (named) is not one of dlzoo: it has no function "
        f"dlzoo_native_abi_version. Build one: {BUILD}"
    )


def test_a_library_that_misses_another_one(
    native_library: Path, model: Path, tmp_path: Path
) -> None:
    source, other = tmp_path / "other.cc", tmp_path / "lib.so"
    source.write_text(
        'extern "C" int nobody_has_this(); int f() { return nobody_has_this(); }\n'
    )
    subprocess.run(
        [find_compiler(), "-shared", "-fPIC", "-Wl,-z,now", source, "-o", other], check=True
    )
    message = refusal(other, model)
    assert "does not load: " in message and "nobody_has_this" in message


def test_a_library_whose_registration_fails(
    native_library: Path, model: Path, tmp_path: Path
) -> None:
    """The two version functions alone make no kernel library."""
    source, other = tmp_path / "other.cc", tmp_path / "lib.so"
    source.write_text(
        'extern "C" { int dlzoo_native_abi_version() { return 1; }\n'
        "int dlzoo_native_ort_api_version() { return 18; }\n"
        'const char* dlzoo_native_instructions() { return "none"; } }\n'
    )
    subprocess.run([find_compiler(), "-shared", "-fPIC", source, "-o", other], check=True)
    message = refusal(other, model)
    assert "does not take the native library LIB: " in message
    assert message.endswith(f"Build it again: {BUILD}")


def test_a_hundred_sessions_share_one_domain(model: Path, native_library: Path) -> None:
    for _ in range(100):
        session = open_session(model, num_threads=1, native_library=native_library)
        assert session.run({"x": X})["y_0"][1] == 0
