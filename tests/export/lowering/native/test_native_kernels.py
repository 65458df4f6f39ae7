"""The whole way of an operator with a native kernel: export, proof, verify, with and without it."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import dlzoo
from dlzoo.export.lowering.native.build import find_compiler
from dlzoo.export.plan.options import ExportOptions
from dlzoo.runtime.bundle.bundle import Bundle, write_manifest
from dlzoo.runtime.session.native_library import NATIVE_LIBRARY_VARIABLE
from tests.support.dlzoo_process import run_dlzoo
from tests.support.native_kernels import changed_library


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, native_library: Path) -> Bundle:
    """A network of two Mish layers, exported where the library is."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.Mish(), nn.Conv2d(8, 16, 3, stride=2), nn.Mish()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    ).eval()
    folder = tmp_path_factory.mktemp("mish") / "mish_net"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NATIVE_LIBRARY_VARIABLE, str(native_library))
        return dlzoo.export_model(
            network,
            folder,
            options=ExportOptions(lowerings={"mish": "function"}),
            input_shape=(3, 12, 12),
            name="mish_net",
        )


@pytest.fixture
def copied(bundle: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(bundle.path, tmp_path / "mish_net")
    return Bundle.open(tmp_path / "mish_net")


LEVELS = ("disabled", "all")


def verified(bundle: Bundle, library: Path | str = "off") -> tuple[str, dict[str, str]]:
    """The verdict, and that of each way in which the operator ran."""
    report = dlzoo.verify(bundle, optimizations=LEVELS, native_library=library)
    verdicts: dict[str, str] = {}
    for result in report.candidates:
        assert result.kernels is not None
        if verdicts.get(result.kernels) != "fail":
            verdicts[result.kernels] = result.verdict
    return report.verdict, verdicts


def command(
    bundle: Bundle, *arguments: str | Path, library: Path | str = "off"
) -> subprocess.CompletedProcess[str]:
    """``dlzoo verify`` in a process of its own, with a library in the environment."""
    environment = {NATIVE_LIBRARY_VARIABLE: str(library)}
    return run_dlzoo("verify", bundle.path, *arguments, **environment)


def test_the_manifest_names_the_operator_and_the_proof_ran_both_ways(bundle: Bundle) -> None:
    assert bundle.manifest.custom_ops == ("dlzoo::Mish",)
    assert bundle.header.functions == ("dlzoo::Mish",)
    candidates = bundle.parity()["candidates"]
    ways = {(c["optimization"], c["kernels"]) for c in candidates}
    levels = ("disabled", "basic", "all")
    assert ways == {(level, way) for level in levels for way in ("native", "function")}
    assert {c["verdict"] for c in candidates} == {"pass"}
    for paper in ("report.html", "MODEL_CARD.md"):
        text = (bundle.path / paper).read_text()
        assert "cpu (native)" in text and "cpu (function)" in text


def test_verify_runs_both_ways_where_the_library_is_and_one_where_not(
    bundle: Bundle, native_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"native": "pass", "function": "pass"}
    assert verified(bundle, native_library) == ("pass", both)
    assert verified(bundle, "off") == ("pass", {"function": "pass"})
    monkeypatch.setenv(NATIVE_LIBRARY_VARIABLE, str(native_library))
    assert verified(bundle, "auto") == ("pass", both)
    assert verified(bundle, "off") == ("pass", {"function": "pass"})


def test_the_command_says_which_way_ran(bundle: Bundle, native_library: Path) -> None:
    by_name = command(bundle, "--native-library", native_library)
    by_environment = command(bundle, library=native_library)
    for done in (by_name, by_environment):
        assert (done.returncode, done.stderr) == (0, "")
        assert "cpu (native)" in done.stdout and "cpu (function)" in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 80
    without = command(bundle, "--native-library=off", "--json", library=native_library)
    assert without.returncode == 0
    assert {c["kernels"] for c in json.loads(without.stdout)["candidates"]} == {"function"}


def test_a_bare_file_with_recorded_outputs_runs_both_ways(
    bundle: Bundle, native_library: Path, tmp_path: Path
) -> None:
    golden = bundle.path / "golden" / "test_data_set_0"
    for library, ways in ((native_library, {"native", "function"}), ("off", {"function"})):
        report = dlzoo.verify(bundle.model_path, golden=golden, native_library=library)
        assert report and {result.kernels for result in report.candidates} == ways
    wrong = changed_library(tmp_path, lambda text: text.replace("n + 2.0f)", "n + 2.0001f)"))
    report = dlzoo.verify(bundle.model_path, golden=golden, native_library=wrong)
    # The recorded outputs are right, and so is the function: the kernel alone fails.
    failed = {r.kernels for r in report.candidates if r.verdict == "fail"}
    assert failed == {"native"}


def test_a_fault_in_the_kernel_is_caught(
    bundle: Bundle, native_library: Path, tmp_path: Path
) -> None:
    wrong = changed_library(tmp_path, lambda text: text.replace("n + 2.0f)", "n + 2.0001f)"))
    assert verified(bundle, wrong) == ("fail", {"native": "fail", "function": "pass"})
    done = command(bundle, library=wrong)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "first cpu (native), optimization all" in done.stderr


def test_a_kernel_that_drops_nan_is_caught(
    bundle: Bundle, native_library: Path, tmp_path: Path
) -> None:
    wrong = changed_library(
        tmp_path, lambda text: text.replace("y[i] = value * (n", "y[i] = bounded * (n", 1)
    )
    assert verified(bundle, wrong) == ("fail", {"native": "fail", "function": "pass"})


def test_a_fault_in_the_function_is_caught(copied: Bundle, native_library: Path) -> None:
    model = onnx.load(copied.model_path)
    (function,) = model.functions
    (two,) = (node for node in function.node if node.output[0] == "two_float")
    two.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.float32(2.001)))
    onnx.save(model, copied.model_path)
    changed = Bundle(copied.path, write_manifest(copied.path, copied.manifest))
    assert verified(changed, native_library) == (
        "fail",
        {"native": "pass", "function": "fail"},
    )


def test_a_manifest_that_hides_the_operator_fails(copied: Bundle) -> None:
    hidden = write_manifest(copied.path, replace(copied.manifest, custom_ops=()))
    report = dlzoo.verify(Bundle(copied.path, hidden), native_library="off")
    assert report.verdict == "fail" and report.reasons == (
        "the model has the custom operators dlzoo::Mish, the manifest says none",
    )


def test_a_library_that_is_none_is_one_line(bundle: Bundle, tmp_path: Path) -> None:
    wrong = tmp_path / "lib.so"
    wrong.write_text("no library\n")
    for done in (
        command(bundle, "--native-library", wrong),
        command(bundle, library=tmp_path / "missing.so"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("dlzoo: Native library ")
        assert len(done.stderr.splitlines()) == 1


# --- a bundle that carries a library -------------------------------------------------------


def carry(bundle: Bundle, library: Path) -> Path:
    carried = bundle.path / "native" / "libdlzoo_native.so.1"
    carried.parent.mkdir()
    shutil.copy(library, carried)
    write_manifest(bundle.path, bundle.manifest)
    return carried


def test_a_carried_library_is_never_loaded_unasked(
    copied: Bundle, native_library: Path, tmp_path: Path
) -> None:
    source, marker, evil = tmp_path / "evil.cc", tmp_path / "ran", tmp_path / "evil.so"
    source.write_text(
        "#include <cstdio>\n"
        "__attribute__((constructor)) void run() "
        f'{{ std::fclose(std::fopen("{marker}", "w")); }}\n'
    )
    subprocess.run([find_compiler(), "-shared", "-fPIC", source, "-o", evil], check=True)
    carried = carry(copied, evil)
    done = command(copied, library="off")
    assert done.returncode == 0 and "cpu (function)" in done.stdout
    text = " ".join(done.stdout.split())
    assert "carries native/libdlzoo_native.so.1, which is code" in text
    assert not marker.exists()
    # That the marker can appear at all: the user names the library.
    done = command(copied, "--native-library", carried)
    assert done.returncode == 2 and "is not one of dlzoo" in done.stderr and marker.exists()


def test_a_carried_library_runs_when_named_and_unchanged(
    copied: Bundle, native_library: Path
) -> None:
    carried = carry(copied, native_library)
    both = {"native": "pass", "function": "pass"}
    assert verified(Bundle.open(copied.path), carried) == ("pass", both)

    session_bundle = Bundle.open(copied.path)
    changed = carried.read_bytes() + b"\0"
    carried.unlink()  # the process has it loaded: written in place it would crash at its end
    carried.write_bytes(changed)
    with pytest.raises(
        dlzoo.errors.BundleError, match=r"native\.so\.1 was changed, and is not"
    ):
        dlzoo.open_session(session_bundle, native_library=carried)
    stranger = carried.with_name("other.so")
    shutil.copy(native_library, stranger)
    with pytest.raises(dlzoo.errors.BundleError, match=r"other\.so is not listed in manifest"):
        dlzoo.open_session(copied.path, native_library=stranger)


# --- doctor --------------------------------------------------------------------------------


def native_finding(**environment: str) -> tuple[int, dict[str, str]]:
    done = run_dlzoo("doctor", "--json", **environment)
    (finding,) = (f for f in json.loads(done.stdout) if f["subject"] == "native kernels")
    return done.returncode, finding


def test_doctor_says_whether_the_kernels_can_be_used(
    native_library: Path, tmp_path: Path
) -> None:
    status, finding = native_finding(DLZOO_NATIVE_LIBRARY=str(native_library))
    assert (status, finding["status"]) == (0, "ok")
    assert finding["detail"].startswith("libdlzoo_native.so (DLZOO_NATIVE_LIBRARY), ")
    status, finding = native_finding(DLZOO_NATIVE_LIBRARY="off")
    assert (status, finding["status"]) == (0, "ok")
    assert "python -m dlzoo.export.lowering.native" in finding["detail"]
    status, finding = native_finding(DLZOO_NATIVE_LIBRARY=str(tmp_path / "missing.so"))
    assert (status, finding["status"]) == (2, "fail")
    assert "does not exist" in finding["detail"]
