"""Folders of images, sound and damaged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dlzoo.errors import ArgumentError, DataError
from dlzoo.runtime.images.preprocess import tensor_from_image
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.dataset_source import load_dataset
from tests.support.data_files import SMALL_RGB, noise, write_folder, write_images


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets")


def load(folder: Path, split: str = "train", **options: object) -> Dataset:
    return load_dataset(str(folder), split=split, geometry=SMALL_RGB, **options)  # type: ignore[arg-type]


def refusal(folder: Path, split: str = "train", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_and_pixels(pets: Path) -> None:
    data = load(pets)
    assert data.class_names == ("cat", "dog")
    assert data.targets.tolist() == [0, 0, 1, 1]
    serving = {
        "color": "RGB",
        "resize_size": 12,
        "crop_size": [10, 8],
        "interpolation": "bilinear",
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
    }
    for k, path in enumerate(
        ("train/cat/a.png", "train/cat/deep/b.jpg", "train/dog/c.webp", "train/dog/d.bmp")
    ):
        expected = tensor_from_image(pets / path, serving)[0]
        read = data.read([k])[0].numpy().astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(read, expected, strict=True)
    assert len(load(pets, "test")) == 2
    assert str(pets.parent) not in str(data.facts)


def test_listing_digest_knows_the_images(pets: Path) -> None:
    before = load(pets).facts["listing_sha256"]
    assert load(pets).facts["listing_sha256"] == before
    write_images(pets, "train/cat/new.png")
    assert load(pets).facts["listing_sha256"] != before


def test_val_stands_in_for_test(pets: Path) -> None:
    (pets / "test").rename(pets / "val")
    assert len(load(pets, "test")) == len(load(pets, "val")) == 2


def test_a_corrupt_image_is_refused_when_read(pets: Path) -> None:
    path = pets / "train/cat/a.png"
    path.write_bytes(path.read_bytes()[:-300])
    data = load(pets)
    assert data.read([1, 2, 3]).shape == (3, 3, 10, 8)
    with pytest.raises(DataError) as caught:
        data.read([2, 0])
    assert str(caught.value).startswith(
        "train/cat/a.png of pets cannot be read as an image: image file is truncated"
    )
    assert str(caught.value).endswith(
        "Give a whole JPEG, PNG, WebP, GIF, BMP or TIFF file. Or leave out such images with "
        '`on_corrupt="skip"`.'
    )


def test_corrupt_images_are_skipped_and_told(pets: Path) -> None:
    (pets / "train/dog/c.webp").write_bytes(b"no image")
    reports: list[tuple[int, int]] = []
    data = load(pets, on_corrupt="skip", progress=lambda *done: reports.append(done))
    assert [image.path for image in data.skipped] == ["train/dog/c.webp"]
    assert data.skipped[0].reason.startswith("train/dog/c.webp of pets cannot be read")
    assert data.facts["skipped"] == ["train/dog/c.webp"]
    assert data.facts["num_images"] == len(data) == 3
    assert data.targets.tolist() == [0, 0, 1]
    assert data.read(range(3)).shape == (3, 3, 10, 8)
    assert reports == [(4, 4)]


def test_a_class_of_corrupt_images(pets: Path) -> None:
    for path in (pets / "train/dog").iterdir():
        path.write_bytes(b"no image")
    assert refusal(pets, on_corrupt="skip").startswith(
        "train/dog/ of pets has no readable images; the first: train/dog/c.webp of pets cannot be "
        "read as an image: of no known format."
    )


def test_too_long_and_narrow(pets: Path) -> None:
    from PIL import Image

    Image.fromarray(noise(1, 60_000, 3)).resize((60_000, 1)).save(pets / "train/cat/line.png")
    huge = SMALL_RGB.__class__(color="RGB", resize_size=256, crop_size=(4, 4))
    data = load_dataset(str(pets), split="train", geometry=huge, on_corrupt="skip")
    assert [image.path for image in data.skipped] == ["train/cat/line.png"]
    assert "too long and narrow to be resized" in data.skipped[0].reason


def test_empty_class(pets: Path) -> None:
    (pets / "train/bird").mkdir()
    (pets / "test/bird").mkdir()
    assert refusal(pets) == (
        "train/bird of pets has no images, expected files that end in .jpg, .jpeg, .png, .webp, "
        ".gif, .bmp, .tif, .tiff. Add some, or delete the class in every split."
    )


def test_classes_that_differ(pets: Path) -> None:
    (pets / "test/dog").rename(pets / "test/cow")
    assert refusal(pets, "test") == (
        "test/ of pets lacks the class dog and has the unknown class cow; expected the 2 "
        "folders of train/. Give every split the same class folders."
    )


def test_other_layouts(pets: Path, tmp_path: Path) -> None:
    assert refusal(pets / "train") == (
        f"{pets}/train has no train/, got cat, dog. Expected train/CLASS/IMAGE and the same "
        "classes under test/ or val/."
    )
    shutil.rmtree(pets / "test")
    assert f"{pets} has no test/ or val/, got train." in refusal(pets, "test")
    assert refusal(pets, "dev") == "pets can have the splits train, test, val, got 'dev'."
    shutil.rmtree(write_folder(tmp_path / "only_test") / "train")
    assert load(tmp_path / "only_test", "test").class_names == ("cat", "dog")
    (tmp_path / "bare/train").mkdir(parents=True)
    assert refusal(tmp_path / "bare").startswith(
        f"{tmp_path}/bare/train has no folders, expected one for each class"
    )


def test_no_such_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("fashon-mnist", split="train", geometry=SMALL_RGB)
    assert str(caught.value) == (
        "No data set is named 'fashon-mnist', and it is not a folder. Did you mean "
        "'fashion-mnist'? Give one of digits, mnist, fashion-mnist, cifar-10, a folder with "
        "train/CLASS/IMAGE, or an index .csv."
    )
    with pytest.raises(
        ArgumentError, match=r"^`root` applies only to named data sets and indexes."
    ):
        load_dataset(str(tmp_path), split="train", geometry=SMALL_RGB, root=tmp_path)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Not root, to whom every folder is readable."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_unreadable_folder(unprivileged: None) -> None:
    # Not under tmp_path, which others than its owner cannot enter at all.
    with tempfile.TemporaryDirectory() as parent:
        pets = write_folder(Path(parent) / "pets")
        (pets / "train/cat").chmod(0)
        message = refusal(pets)
        (pets / "train/cat").chmod(0o700)
    assert message == (
        "The folder train/cat of pets cannot be read: Permission denied. Change its "
        "permissions, or move it away."
    )
