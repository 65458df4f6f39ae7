"""Images with several labels each, listed in a CSV file.

file,labels,split
images/1.jpg,person|dog,train
images/2.jpg,,test
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from dlzoo.errors import DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.dataset import Dataset, SkippedImage
from dlzoo.zoo.data.file_dataset import FileDataset, OnCorrupt, Progress, find_unreadable

_COLUMNS = ("file", "labels", "split")
_SPLITS = ("train", "val", "test")
#: Separates the labels of one image.
_SEPARATOR = "|"


@dataclass(frozen=True)
class _Row:
    line: int
    file: str
    labels: tuple[str, ...]
    split: str


def load_index_csv(
    index: Path,
    *,
    split: str,
    geometry: Geometry,
    root: Path | None = None,
    on_corrupt: OnCorrupt = "refuse",
    progress: Progress | None = None,
) -> Dataset:
    """One split of an index of images that can have several labels, or none.

    The classes are the labels in the rows of split ``train``, sorted. Columns other than
    ``file``, ``labels`` (``a|b|c``) and ``split`` (train, val, test) are ignored.

    Args:
        index: the CSV file, UTF-8, with a header.
        split: ``train``, ``val``, or ``test`` (the rows of ``val`` if there are none of ``test``).
        geometry: how images become an input.
        root: folder to which ``file`` is relative; by default the folder of the index.
        on_corrupt: with ``refuse`` a missing file is an error now, and a damaged one when it is
            read; with ``skip`` every image is decoded once now, and those that cannot be are left out.
        progress: called with the number of images checked so far, and of all.

    **Shape**: the targets are float32 [N, K] of 0 and 1.

    Raises:
        DataError: the index is damaged, or names an unknown file or label.
    """
    rows = list(_rows(index))
    class_names = tuple(
        sorted({c for row in rows if row.split == "train" for c in row.labels})
    )
    if not class_names:
        raise DataError(f"{index} has no labelled rows in the split train. Add some.")
    wanted = split
    if split == "test" and not any(row.split == "test" for row in rows):
        wanted = "val"
    chosen = [row for row in rows if row.split == wanted]
    if not chosen:
        raise DataError(f"{index} has no rows in the split {split}. Add some.")
    root = root or index.parent
    columns = {name: k for k, name in enumerate(class_names)}
    for row in chosen:
        for label in row.labels:
            if label not in columns:
                raise DataError(
                    f"{index}, line {row.line}: the label {label!r} is in no row of the split "
                    "train. Correct it, or add training images with it."
                )
        if on_corrupt == "refuse" and not (root / row.file).is_file():
            raise DataError(
                f"{index}, line {row.line}: {row.file} does not exist. Correct the path, which "
                'is relative to the index, or leave out such images with `on_corrupt="skip"`.'
            )
    skipped: tuple[SkippedImage, ...] = ()
    if on_corrupt == "skip":
        paths = [row.file for row in chosen]
        skipped = find_unreadable(
            root, paths, name=index.name, geometry=geometry, progress=progress
        )
        left_out = {image.path for image in skipped}
        chosen = [row for row in chosen if row.file not in left_out]
        if not chosen:
            raise DataError(
                f"{index} has no readable images in the split {split}; the first: "
                f"{skipped[0].reason}"
            )
    targets_NK = torch.zeros(len(chosen), len(class_names))
    for k, row in enumerate(chosen):
        targets_NK[k, [columns[label] for label in row.labels]] = 1.0
    return FileDataset(
        root,
        [row.file for row in chosen],
        targets=targets_NK,
        name=index.name,
        split=split,
        class_names=class_names,
        geometry=geometry,
        facts={"kind": "index-csv"},
        skipped=skipped,
    )


def _rows(index: Path) -> Iterator[_Row]:
    seen: dict[str, int] = {}
    try:
        with index.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = reader.fieldnames or ()
            if missing := [name for name in _COLUMNS if name not in header]:
                raise DataError(
                    f"{index} has no column {missing[0]!r}, got {', '.join(header) or 'nothing'}. "
                    f"Expected a header with {', '.join(_COLUMNS)}."
                )
            for values in reader:
                row = _row(index, reader.line_num, values)
                if row.file in seen:
                    raise DataError(
                        f"{index}, line {row.line}: {row.file} is already listed on line "
                        f"{seen[row.file]}. List each image once."
                    )
                seen[row.file] = row.line
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(f"{index} cannot be read as CSV: {reason}. Write it again.") from None
    except OSError as error:
        raise DataError(f"{index} cannot be read: {error.strerror}.") from None


def _row(index: Path, line: int, values: dict[str, str | None]) -> _Row:
    file, labels, split = (values[name] for name in _COLUMNS)
    if file is None or labels is None or split is None or not file.strip():
        raise DataError(
            f"{index}, line {line}: expected {', '.join(_COLUMNS)}, but one of {len(values)} "
            "columns is missing. Complete the row."
        )
    if split.strip() not in _SPLITS:
        raise DataError(
            f"{index}, line {line}: split got {split.strip()!r}, expected one of "
            f"{', '.join(_SPLITS)}."
        )
    names = tuple(label.strip() for label in labels.split(_SEPARATOR) if label.strip())
    return _Row(line, file.strip(), names, split.strip())
