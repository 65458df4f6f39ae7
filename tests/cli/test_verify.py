"""``dlzoo verify`` through real processes, also on a machine without PyTorch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx

from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
from dlzoo.runtime.onnx_reader.tensor_proto import encode_tensor
from tests.support.dlzoo_process import run_dlzoo

#: An import of torch or onnx fails, as where they are not installed.
WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "onnx_ir"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["dlzoo", *sys.argv[1:]]
from dlzoo.cli.main import main
main()
"""


def test_a_bundle_is_replayed_without_torch(lenet_bundle: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "verify", str(lenet_bundle), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "pass"
    assert {c["optimization"] for c in document["candidates"]} == {"all"}
    assert done.stderr == ""


def test_every_level_can_be_asked_for(lenet_bundle: Path) -> None:
    levels = ("disabled", "basic", "extended", "all")
    flags = [flag for level in levels for flag in ("--optimization", level)]
    done = run_dlzoo("verify", lenet_bundle, *flags, "--json")
    assert done.returncode == 0, done.stderr
    candidates = json.loads(done.stdout)["candidates"]
    assert [*dict.fromkeys(c["optimization"] for c in candidates)] == [*levels]


def test_the_table_fits_80_columns(lenet_bundle: Path) -> None:
    done = run_dlzoo("verify", lenet_bundle)
    assert done.returncode == 0
    assert "PASS  lenet5_relu" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_against_the_model_itself(lenet_bundle: Path) -> None:
    done = run_dlzoo("verify", lenet_bundle, "--against", "lenet5_relu", "--weights", "random")
    assert done.returncode == 0, done.stderr


def test_against_other_weights_is_a_fail(lenet_bundle: Path) -> None:
    done = run_dlzoo(
        *("verify", lenet_bundle, "--against", "lenet5_relu"),
        *("--weights", "random", "--seed", "1"),
    )
    assert done.returncode == 1
    assert "the verdict is fail" in done.stderr and "rho2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_byte_is_found(lenet_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(lenet_bundle, copy)
    with (copy / "golden" / "test_data_set_0" / "output_0.pb").open("ab") as file:
        file.write(b"\0")
    done = run_dlzoo("verify", copy)
    assert done.returncode == 2
    assert "output_0.pb was changed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_provider_that_is_not_there_is_refused(lenet_bundle: Path) -> None:
    done = run_dlzoo("verify", lenet_bundle, "--provider", "tensorrt")
    assert done.returncode == 2
    assert "tensorrt" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_graph_of_others_matches_what_was_recorded(tmp_path: Path) -> None:
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = light / "light_squeezenet.onnx"
    (spec,) = read_onnx_header(model).inputs
    # The ramp that onnx's own test runner feeds these graphs (generate_dummy_data).
    size = int(np.prod(spec.dims))
    ramp = (np.arange(size) / size).astype(np.float32).reshape(spec.dims)
    (tmp_path / "input_0.pb").write_bytes(encode_tensor(spec.name, ramp))
    shutil.copy(light / "light_squeezenet_output_0.pb", tmp_path / "output_0.pb")

    done = run_dlzoo("verify", model, "--golden", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"

    (tmp_path / "output_0.pb").write_bytes(
        encode_tensor("softmaxout_1", np.full((1, 1000, 1, 1), 2e-3, np.float32))
    )
    done = run_dlzoo("verify", model, "--golden", tmp_path)
    assert done.returncode == 1, done.stdout
    assert "the verdict is fail" in done.stderr
