"""CIFAR-10's binary version, as an archive and unpacked."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dlzoo.errors import DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.dataset_source import load_dataset
from dlzoo.zoo.data.datasets import cifar10
from tests.support.data_files import noise

GEOMETRY = Geometry(color="RGB", resize_size=32, crop_size=(32, 32))


def records(num_images: int, seed: int) -> bytes:
    values = noise(num_images, 3073, seed=seed)
    values[:, 0] %= 10
    return values.tobytes()


FILES = {f"data_batch_{k}.bin": records(k, seed=k) for k in range(1, 6)} | {
    "test_batch.bin": records(3, seed=9)
}


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def load(root: Path, split: str = "train") -> Dataset:
    return load_dataset("cifar-10", split=split, geometry=GEOMETRY, root=root)


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_archive_and_unpacked(tmp_path: Path) -> None:
    write_archive(tmp_path / "cifar-10-binary.tar.gz", FILES)
    data = load(tmp_path)
    expected = np.frombuffer(b"".join(list(FILES.values())[:5]), np.uint8).reshape(15, 3073)
    assert data.targets.tolist() == expected[:, 0].tolist()
    # Red rows first, then green, then blue: the layout of a tensor.
    pixels = torch.from_numpy(expected[:, 1:].reshape(15, 3, 32, 32).copy())
    assert torch.equal(data.read(range(15)), pixels)
    assert data.class_names[3] == "cat"
    digest = hashlib.sha256((tmp_path / "cifar-10-binary.tar.gz").read_bytes()).hexdigest()
    assert data.facts["sha256"] == {"cifar-10-binary.tar.gz": digest}
    unpacked = tmp_path / "unpacked/cifar-10-batches-bin"
    unpacked.mkdir(parents=True)
    for name, content in FILES.items():
        (unpacked / name).write_bytes(content)
    for root in (unpacked, unpacked.parent):
        assert torch.equal(load(root).read(range(15)), pixels)
        assert len(load(root, "test")) == 3


def test_damaged_archives(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(archive, FILES)
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive", b""):
        archive.write_bytes(damaged)
        message = refusal(tmp_path)
        assert message.startswith(f"{archive} cannot be read: ")
        assert message.endswith(f"Download it again: {cifar10.URL}.")
    write_archive(archive, {k: v for k, v in FILES.items() if k != "data_batch_4.bin"})
    assert (
        refusal(tmp_path)
        == f"{archive} has no data_batch_4.bin. Download it again: {cifar10.URL}."
    )


def test_damaged_records(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(archive, FILES | {"data_batch_2.bin": records(2, 0)[:-1]})
    assert refusal(tmp_path) == (
        "data_batch_2.bin of cifar-10 has 6,145 bytes, expected a multiple of 3,073 above 0. "
        "Unpack cifar-10-binary.tar.gz again."
    )
    write_archive(archive, FILES | {"data_batch_2.bin": b"\x0b" + bytes(3072)})
    assert refusal(tmp_path) == (
        "data_batch_2.bin of cifar-10: label 11 is unknown, expected 0 to 9. "
        "Unpack cifar-10-binary.tar.gz again."
    )


def test_pickles_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert refusal(tmp_path) == (
        f"{tmp_path}/cifar-10-batches-py is the Python version of CIFAR-10: pickles, which can "
        f"run any code. Put the binary version there: {cifar10.URL}."
    )


def test_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path} has neither cifar-10-binary.tar.gz nor cifar-10-batches-bin/. Put the "
        f"archive there ({cifar10.URL}), or omit the root to download it."
    )
    monkeypatch.setenv("DLZOO_HOME", str(tmp_path))
    with pytest.raises(
        DataError, match=r"^cifar-10 is not on this machine: .* Allow the down"
    ):
        load_dataset("cifar-10", split="test", geometry=GEOMETRY, download=False)
    with pytest.raises(
        DataError, match=r"^cifar-10 has the splits train and test, got 'dev'.$"
    ):
        load(tmp_path, "dev")
