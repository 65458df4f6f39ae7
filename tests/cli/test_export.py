"""``dlzoo export`` through real processes: files, output, exit status, and what is never left behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.dlzoo_process import run_dlzoo

KEYS = {"verdict", "bundle", "opset", "candidates", "power", "dynamic_axes", "seconds"}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_bundle_is_complete(lenet_bundle: Path) -> None:
    names = {path.name for path in lenet_bundle.iterdir()}
    assert names == {
        "model.onnx",
        "manifest.json",
        "golden",
        "parity.json",
        "report.html",
        "MODEL_CARD.md",
    }
    sets = sorted((lenet_bundle / "golden").iterdir())
    assert len(sets) >= 3
    for folder in sets:
        assert (folder / "input_0.pb").is_file() and (folder / "output_0.pb").is_file()


def test_no_file_tells_of_the_machine(lenet_bundle: Path) -> None:
    home, here = str(Path.home()), str(lenet_bundle.parent)
    repository = str(Path(__file__).resolve().parents[2])
    for path in lenet_bundle.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in (here, repository, f"{home}/", "Traceback", "stack_trace"):
                assert secret.encode() not in data, (path.name, secret)


def test_the_same_model_is_the_same_bytes_anywhere(lenet_bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "quite" / "another place"
    place.mkdir(parents=True)
    done = run_dlzoo(
        *("export", "lenet5_relu", "-o", "other", "--weights", "random", "--json"),
        cwd=place,
        PYTHONHASHSEED="12345",
        HOME=str(tmp_path),
        USER="somebody",
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    assert digest(place / "other" / "model.onnx") == digest(lenet_bundle / "model.onnx")

    document = json.loads(done.stdout)
    assert set(document) >= KEYS
    assert document["verdict"] == "pass"
    candidate_keys = {"provider", "optimization", "batch", "verdict", "rho2", "rhomax"}
    assert all(set(candidate) >= candidate_keys for candidate in document["candidates"])
    assert {c["optimization"] for c in document["candidates"]} == {"disabled", "basic", "all"}
    assert {c["batch"] for c in document["candidates"]} >= {1, 2, 3}
    assert document["power"]["tried"] >= document["power"]["detected"] > 0
    assert document["dynamic_axes"]["batch"]["proved"] == [1, 2, 3]
    assert "random weights" in done.stderr


MISTAKES = {
    "unknown model": (
        ["export", "lenet"],
        "No model is named 'lenet'. Did you mean",
    ),
    "opset too low": (["export", "lenet5_relu", "--opset", "3"], "--opset got 3"),
    "opset unknown": (["export", "lenet5_relu", "--opset", "99"], "opset"),
    "head": (["export", "lenet5_relu", "--head", "tail"], "--head got 'tail'"),
    "batch": (["export", "lenet5_relu", "--batch", "-1"], "--batch got '-1'"),
    "image size": (["export", "lenet5_relu", "--image-size", "big"], "--image-size got 'big'"),
    "too small": (["export", "lenet5_relu", "--image-size", "8,8"], "at least"),
    "weights file": (["export", "lenet5_relu", "--weights", "gone.pth"], "gone.pth"),
    "provider": (["export", "lenet5_relu", "--provider", "gpu"], "gpu"),
    "flag": (["export", "lenet5_relu", "--opsett", "20"], "--opsett"),
    "no model": (["export"], "Missing argument"),
    "command": (["exprot"], "exprot"),
    "dynamic size": (["export", "lenet5_relu", "--image-size", "dynamic"], "lenet5_relu"),
    "not a bundle": (["verify", "nothing-here"], "nothing-here does not exist"),
    "bare onnx": (["verify", "model.onnx"], "--golden"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing(mistake: str, tmp_path: Path) -> None:
    arguments, expected = MISTAKES[mistake]
    done = run_dlzoo(*arguments, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("dlzoo: ") and expected in lines[0]
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_taken_target_is_refused_before_any_work(lenet_bundle: Path) -> None:
    before = digest(lenet_bundle / "manifest.json")
    done = run_dlzoo("export", "lenet5_relu", "-o", lenet_bundle)
    assert done.returncode == 2
    assert "already holds a bundle" in done.stderr and "--force" in done.stderr
    assert digest(lenet_bundle / "manifest.json") == before


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("dear")
    done = run_dlzoo("export", "lenet5_relu", "-o", "photos", "--force", cwd=tmp_path)
    assert done.returncode == 2
    assert (tmp_path / "photos" / "one.jpg").read_text() == "dear"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["build", "write"])
def test_a_killed_export_leaves_no_bundle(
    tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    command = [sys.executable, "-m", "dlzoo", "export", "lenet5_relu", "-o", "lenet"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    partial = wait_for_partial(tmp_path, process, with_model=moment == "write")
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert not (tmp_path / "lenet").exists()
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in errors and "interrupted" in errors
        assert list(tmp_path.iterdir()) == []
    else:
        assert process.returncode == -number
        assert partial.exists()
        run_dlzoo("export", "lenet5_relu", "-o", "lenet", cwd=tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["lenet"]


def wait_for_partial(
    folder: Path, process: subprocess.Popen[str], *, with_model: bool
) -> Path:
    """The unfinished folder, as soon as there is one (and its model is being written)."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for path in folder.glob(".lenet.partial-*"):
            if not with_model or (path / "model.onnx").exists():
                return path
        time.sleep(0.01)
    raise AssertionError(f"no unfinished bundle was seen: {process.communicate()}")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root"
)
def test_a_full_disk_gets_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine mounts no tmpfs")
    try:
        done = run_dlzoo("export", "lenet5_relu", "-o", disk / "lenet")
        assert done.returncode == 2, done.stderr
        assert "cannot be written: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
