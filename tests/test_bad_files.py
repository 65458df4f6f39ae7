"""Damaged and hostile .onnx files: one line each, through every function and command that opens one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import dlzoo
from dlzoo.errors import BundleError, DlzooError
from tests.support.dlzoo_process import run_dlzoo

BAD = sorted((Path(__file__).parent / "onnx").glob("bad_*.onnx"))


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Recorded data for the inputs that the bad files name."""
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    for kind, shape in (("input", (2, 4)), ("output", (2, 3))):
        tensor = numpy_helper.from_array(np.ones(shape, np.float32))
        (folder / f"{kind}_0.pb").write_bytes(tensor.SerializeToString())
    return folder


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
@pytest.mark.parametrize("command", ["verify", "diff"])
def test_a_bad_file_is_one_line(path: Path, command: str, golden: Path) -> None:
    with pytest.raises(DlzooError) as error:
        if command == "verify":
            dlzoo.verify(path, golden=golden)
        else:
            dlzoo.diff(path, path, golden=golden)
    said = str(error.value)
    assert "\n" not in said and len(said) < 700
    assert path.stem in said


@pytest.mark.parametrize("name", ["bad_cycle", "bad_external_escapes", "bad_truncated"])
@pytest.mark.parametrize("command", ["verify", "diff"])
def test_a_process_ends_with_2(name: str, command: str, golden: Path) -> None:
    path = Path(__file__).parent / "onnx" / f"{name}.onnx"
    files = [path] if command == "verify" else [path, path]
    done = run_dlzoo(command, *files, "--golden", golden)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dlzoo: ") and done.stderr.count("\n") == 1


def test_a_file_beyond_protobufs_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31 + 100)  # sparse: takes no room on the disk
    with pytest.raises(BundleError, match=r"it has 2\.0 GiB, and no runtime reads") as error:
        dlzoo.open_session(path)
    assert "\n" not in str(error.value)


def test_weights_behind_a_link_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(48))
    home = tmp_path / "home"
    home.mkdir()
    model = onnx.load(BAD[0].parent / "bad_external_missing.onnx", load_external_data=False)
    path = home / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (home / "bad_external_missing.data").symlink_to(secret)
    with pytest.raises(BundleError, match="outside its own folder"):
        dlzoo.open_session(path)


def test_weights_with_the_right_checksum_are_taken(tmp_path: Path) -> None:
    import hashlib

    data = np.ones((3, 4), np.float32).tobytes()
    (tmp_path / "weights.data").write_bytes(data)
    model = onnx.load(BAD[0].parent / "bad_external_checksum.onnx", load_external_data=False)
    entries = {entry.key: entry for entry in model.graph.initializer[0].external_data}
    entries["location"].value = "weights.data"
    entries["checksum"].value = hashlib.sha1(data).hexdigest()
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    session = dlzoo.open_session(path)
    assert session.run({"image": np.ones((1, 4), np.float32)})["y"].tolist() == [
        [4.0, 4.0, 4.0]
    ]
    (tmp_path / "weights.data").write_bytes(data[:-1] + b"\x00")
    with pytest.raises(BundleError, match="it was changed or cut off"):
        dlzoo.open_session(path)
