"""IDX files, whole and damaged."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from dlzoo.errors import DataError, DownloadError
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.dataset_source import load_dataset
from dlzoo.zoo.data.datasets.idx import FASHION_MNIST, MNIST, load_idx, read_idx
from tests.support.data_files import DIGIT_28, DIGIT_32, idx_bytes, noise, write_idx

if TYPE_CHECKING:
    from tests.zoo.conftest import FileServer

IMAGES = noise(7, 28, 28)
LABELS = np.array([0, 9, 3, 3, 1, 2, 8], np.uint8)


def load(root: Path, **options: object) -> Dataset:
    return load_dataset("mnist", split="train", geometry=DIGIT_28, root=root, **options)  # type: ignore[arg-type]


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_plain_and_compressed_files(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES, LABELS)
    data = load(tmp_path)
    assert torch.equal(data.read(range(7)), torch.from_numpy(IMAGES)[:, None])
    assert torch.equal(data.targets, torch.from_numpy(LABELS).long())
    assert data.class_names == tuple("0123456789")
    assert not data.is_multi_label
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES))
    assert load(tmp_path).facts == data.facts


def test_facts_name_no_path_and_know_the_published_files(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES, LABELS)
    facts = load(tmp_path).facts
    assert facts["num_images"] == 7
    digest = hashlib.sha256(idx_bytes(LABELS)).hexdigest()
    assert facts["sha256"]["train-labels-idx1-ubyte"] == digest
    assert facts["is_as_published"] is False
    assert str(tmp_path) not in str(facts)


def test_the_systems_fashion_mnist() -> None:
    assert FASHION_MNIST.system_folder is not None
    if not FASHION_MNIST.system_folder.is_dir():
        pytest.skip(f"needs the Debian package {FASHION_MNIST.system_package}")
    data = load_dataset("fashion-mnist", split="test", geometry=DIGIT_32, download=False)
    assert data.facts["is_as_published"] is True
    assert torch.bincount(data.targets).tolist() == [1000] * 10
    assert data.read([0]).shape == (1, 1, 32, 32)


def test_bad_magic(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES, LABELS)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(IMAGES))
    assert refusal(tmp_path) == (
        f"{path} begins with 00000803, expected 00000801: unsigned bytes in 1 dimensions. "
        "Give an IDX file like those of MNIST."
    )
    path.write_bytes(b"")
    assert "begins with nothing, expected 00000801" in refusal(tmp_path)


def test_short_and_long_files(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES, LABELS)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(LABELS)[:-2])
    assert refusal(tmp_path) == f"{path} announces 7 = 7 bytes, got 5. Get it again."
    path.write_bytes(idx_bytes(LABELS) + b"x")
    assert refusal(tmp_path) == f"{path} announces 7 = 7 bytes, got more. Get it again."
    path.write_bytes(idx_bytes(LABELS)[:6])
    assert "announces 0 = 0 bytes, got 0" in refusal(tmp_path)


def test_a_header_that_promises_more_than_memory_holds(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(bytes((0, 0, 8, 3)) + b"\xff" * 12 + b"pixels")
    with pytest.raises(DataError, match=r"4294967295 x 4294967295 x 4294967295 = .* got 6\."):
        read_idx(path, num_dims=3)


def test_compressed_content_beyond_the_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(idx_bytes(LABELS) + bytes(2**26), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"announces 7 = 7 bytes, got more\."):
        read_idx(path, num_dims=1)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**24


def test_damaged_compression(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES, LABELS)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for damaged in (whole[:-40], whole[:200] + b"\0" * 200 + whole[400:], b"no gzip at all"):
        path.write_bytes(damaged)
        assert refusal(tmp_path).startswith(f"{path} cannot be read: ")


def test_images_and_labels_that_do_not_belong_together(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES, LABELS[:5])
    assert refusal(tmp_path) == (
        "train-images-idx3-ubyte.gz has 7 images, but train-labels-idx1-ubyte has 5 labels, "
        "expected equal numbers. Get both files again."
    )


def test_unknown_label(tmp_path: Path) -> None:
    write_idx(tmp_path, IMAGES, LABELS + 1)
    assert refusal(tmp_path) == (
        "train-labels-idx1-ubyte: label 10 is unknown, expected 0 to 9. Use the labels of mnist."
    )


def test_missing_files_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path} has neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz. Put the "
        "files of mnist there, or omit the root to download them."
    )
    assert refusal(tmp_path / "nowhere") == (
        f"{tmp_path}/nowhere is not a folder. Give the folder of mnist."
    )
    with pytest.raises(DataError, match=r"^mnist has the splits train and test, got 'val'.$"):
        load_dataset("mnist", split="val", geometry=DIGIT_28)
    monkeypatch.setenv("DLZOO_HOME", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", split="test", geometry=DIGIT_28, download=False)
    assert str(caught.value) == (
        f"mnist is not on this machine: {tmp_path}/data/mnist has neither "
        "t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte.gz. Allow the download, or pass the "
        "folder of the four files as the root."
    )


def test_download(tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # The server gives one file under every path, so the labels are there already.
    write_idx(tmp_path / "data", IMAGES, LABELS)
    monkeypatch.setenv("DLZOO_HOME", str(tmp_path))
    (tmp_path / "data").rename(tmp_path / "aside")
    (tmp_path / "data").mkdir()
    (tmp_path / "aside").rename(tmp_path / "data/mnist")
    server.content = gzip.compress(idx_bytes(IMAGES))
    server.cuts = [1000]
    stem = "train-images-idx3-ubyte"
    (tmp_path / f"data/mnist/{stem}.gz").unlink()
    files = replace(
        MNIST,
        url=server.url.replace("file.pth", ""),
        sha256_of_archive={stem: hashlib.sha256(server.content).hexdigest()},
    )
    reports: list[tuple[int, int]] = []
    data = load_idx(
        files, split="train", geometry=DIGIT_28, progress=lambda *done: reports.append(done)
    )
    assert torch.equal(data.read(range(7)), torch.from_numpy(IMAGES)[:, None])
    assert server.ranges == [None, "bytes=1000-"]
    assert reports[-1] == (len(server.content),) * 2
    load_idx(files, split="train", geometry=DIGIT_28)
    assert len(server.ranges) == 2


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLZOO_HOME", str(tmp_path))
    files = replace(FASHION_MNIST, url="http://127.0.0.1:9/", system_folder=None)
    monkeypatch.setattr("dlzoo.zoo.download.time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError) as caught:
        load_idx(files, split="train", geometry=DIGIT_28)
    assert str(caught.value) == (
        "Cannot download train-images-idx3-ubyte.gz from 127.0.0.1: [Errno 111] Connection refused. "
        "Try again when the network is available, or get "
        "http://127.0.0.1:9/train-images-idx3-ubyte.gz elsewhere and pass the folder of the "
        'four files as the root or run "apt install dataset-fashion-mnist", or put it '
        f"at {tmp_path}/data/fashion-mnist/train-images-idx3-ubyte.gz."
    )
