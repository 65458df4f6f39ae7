"""An index of images with several labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlzoo.errors import DataError
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.dataset_source import load_dataset
from tests.support.data_files import SMALL_RGB, write_images

HEADER = "file,labels,split\n"
SOUND = HEADER + "a.png,person|dog,train\nb.png,,train\nc.png, cat ,train\nd.png,dog,val\n"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    write_images(tmp_path, *(f"{name}.png" for name in "abcd"))
    path = tmp_path / "index.csv"
    path.write_text(SOUND)
    return path


def load(index: Path, split: str = "train", **options: object) -> Dataset:
    return load_dataset(str(index), split=split, geometry=SMALL_RGB, **options)  # type: ignore[arg-type]


def refusal(index: Path, text: str, split: str = "train", **options: object) -> str:
    index.write_text(text)
    with pytest.raises(DataError) as caught:
        load(index, split, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(index))


def test_labels_and_splits(index: Path) -> None:
    data = load(index)
    assert data.is_multi_label
    assert data.class_names == ("cat", "dog", "person")
    expected = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert torch.equal(data.targets, expected)
    assert data.read([2, 0]).shape == (2, 3, 10, 8)
    for split in ("val", "test"):  # val stands in for a missing test
        assert load(index, split).class_names == data.class_names
        assert load(index, split).targets.tolist() == [[0.0, 1.0, 0.0]]


def test_other_columns_and_a_byte_order_mark(index: Path) -> None:
    text = "\ufefffile,width,split,labels\na.png,20,train,dog\n"
    index.write_text(text, encoding="utf-8")
    assert load(index).class_names == ("dog",)


def test_root(index: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = index.rename(elsewhere / "index.csv")
    assert len(load(moved, root=tmp_path)) == 3


@pytest.mark.parametrize(
    ("text", "split", "message"),
    [
        (
            HEADER + "a.png,dog,train\nb.png,cow,test\n",
            "test",
            ", line 3: the label 'cow' is in no row of the split train. Correct it, or add "
            "training images with it.",
        ),
        (
            HEADER + "a.png,dog,trian\n",
            "train",
            ", line 2: split got 'trian', expected one of train, val, test.",
        ),
        (
            HEADER + "a.png,dog,train\na.png,cat,test\n",
            "train",
            ", line 3: a.png is already listed on line 2. List each image once.",
        ),
        (
            HEADER + "a.png,dog\n",
            "train",
            ", line 2: expected file, labels, split, but one of 3 columns is missing. Complete "
            "the row.",
        ),
        (
            "file,label\na.png,dog\n",
            "train",
            " has no column 'labels', got file, label. Expected a header with file, labels, split.",
        ),
        ("", "train", " has no column 'file', got nothing. Expected a header with file, labels, "
         "split."),
        (HEADER, "train", " has no labelled rows in the split train. Add some."),
        (HEADER + "a.png,dog,train\n", "test", " has no rows in the split test. Add some."),
        (
            HEADER + "x/none.png,dog,train\n",
            "train",
            ", line 2: x/none.png does not exist. Correct the path, which is relative to the "
            'index, or leave out such images with `on_corrupt="skip"`.',
        ),
        (
            HEADER + '"a.png,dog,train\n',
            "train",
            " cannot be read as CSV: unexpected end of data. Write it again.",
        ),
    ],
)  # fmt: skip
def test_damaged_index(index: Path, text: str, split: str, message: str) -> None:
    assert refusal(index, text, split) == message


def test_other_encodings_and_no_file(index: Path) -> None:
    index.write_bytes(HEADER.encode() + "a.png,Bär,train\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"index.csv cannot be read as CSV: it is not UTF-8\."):
        load(index)
    with pytest.raises(
        DataError, match=r"none.csv cannot be read: No such file or directory\."
    ):
        load(index.with_name("none.csv"))


def test_missing_images_are_skipped(index: Path) -> None:
    (index.parent / "a.png").unlink()
    (index.parent / "c.png").write_bytes(b"no image")
    data = load(index, on_corrupt="skip")
    assert [image.path for image in data.skipped] == ["a.png", "c.png"]
    assert data.skipped[0].reason.startswith("a.png of index.csv does not exist.")
    assert data.targets.tolist() == [[0.0, 0.0, 0.0]]
    (index.parent / "b.png").unlink()
    assert refusal(index, SOUND, on_corrupt="skip").startswith(
        " has no readable images in the split train; the first: a.png of index.csv"
    )
