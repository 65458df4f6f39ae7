"""Data sets by name, from a folder, or from an index."""

from __future__ import annotations

import difflib
from pathlib import Path

from dlzoo.errors import ArgumentError, DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.datasets.cifar10 import load_cifar10
from dlzoo.zoo.data.datasets.digits import load_digits
from dlzoo.zoo.data.datasets.idx import FASHION_MNIST, MNIST, load_idx
from dlzoo.zoo.data.datasets.image_folder import load_image_folder
from dlzoo.zoo.data.datasets.index_csv import load_index_csv
from dlzoo.zoo.data.file_dataset import OnCorrupt
from dlzoo.zoo.download import Progress

#: Named data sets; ``digits`` needs neither a network nor a file.
DATASET_NAMES = ("digits", "mnist", "fashion-mnist", "cifar-10")


def load_dataset(
    name_or_path: str,
    *,
    split: str,
    geometry: Geometry,
    root: Path | str | None = None,
    on_corrupt: OnCorrupt = "refuse",
    download: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """One split of a data set.

    Args:
        name_or_path: a name (which takes precedence over a folder of that name: write ``./mnist``
            for the folder), an image folder, or an index ending in ``.csv``.
        split: ``train`` or ``test``; folders and indexes can also have ``val``.
        geometry: how images become an input.
        root: the folder of a named data set, or the folder to which files in an index are relative.
        on_corrupt: with ``refuse`` an image that cannot be read is an error when it is read; with
            ``skip`` all images are checked now, and those are left out.
        download: whether to download a named data set that is not on this machine.
        progress: called with (done so far, in all): bytes of a download, or images checked.

    Raises:
        DataError: the data set is missing, damaged or inconsistent.
        DownloadError: the data set cannot be downloaded.
        ArgumentError: an argument does not apply to this kind of data set.
    """
    folder = None if root is None else Path(root).expanduser()
    if name_or_path in DATASET_NAMES:
        if folder is not None and not folder.is_dir():
            raise DataError(f"{folder} is not a folder. Give the folder of {name_or_path}.")
        if name_or_path == "digits":
            if folder is not None:
                raise ArgumentError("The digits come with scikit-learn. Omit `root`.")
            return load_digits(split=split, geometry=geometry)
        if name_or_path == "cifar-10":
            return load_cifar10(
                split=split,
                geometry=geometry,
                root=folder,
                allow_download=download,
                progress=progress,
            )
        return load_idx(
            MNIST if name_or_path == "mnist" else FASHION_MNIST,
            split=split,
            geometry=geometry,
            root=folder,
            allow_download=download,
            progress=progress,
        )
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() == ".csv":
        return load_index_csv(
            path,
            split=split,
            geometry=geometry,
            root=folder,
            on_corrupt=on_corrupt,
            progress=progress,
        )
    if folder is not None:
        raise ArgumentError("`root` applies only to named data sets and indexes. Omit it.")
    if not path.is_dir():
        close = difflib.get_close_matches(name_or_path, DATASET_NAMES, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"No data set is named {name_or_path!r}, and it is not a folder. {hint}Give one of "
            f"{', '.join(DATASET_NAMES)}, a folder with train/CLASS/IMAGE, or an index .csv."
        )
    return load_image_folder(
        path, split=split, geometry=geometry, on_corrupt=on_corrupt, progress=progress
    )
