"""CIFAR-10 from the binary version of its archive, which can be read without running code.

**Source** Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; the format
is described on https://www.cs.toronto.edu/~kriz/cifar.html.

Shapes: N images, 3 colours, 32 x 32 pixels.
"""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dlzoo.errors import DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.array_dataset import ArrayDataset
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.labels import load_labels
from dlzoo.zoo.download import Progress, data_folder, download, sha256_of_file

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
#: Source: TensorFlow Datasets, ``url_checksums/cifar10.txt``. The authors' page gives the md5
#: c32a1d4ab5d03f1284b67883e8d87530 of the same file of 170,052,171 bytes.
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
ARCHIVE = "cifar-10-binary.tar.gz"
CLASS_NAMES = load_labels("cifar10")

_FOLDER = "cifar-10-batches-bin"
_PYTHON_VERSION = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
_FILES = {
    "train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    "test": ("test_batch.bin",),
}
_SIDE = 32
#: A record is the label, then the rows of the red, the green and the blue channel.
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE
#: The published files have 10,000 records each; a file may have at most ten times as many.
_LARGEST_FILE_BYTES = 100_000 * _RECORD_BYTES


def load_cifar10(
    *,
    split: str,
    geometry: Geometry,
    root: Path | None = None,
    allow_download: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """One split of CIFAR-10: 50,000 training images, 10,000 test images.

    Args:
        split: ``train`` or ``test``.
        geometry: how images become an input; 32 x 32 is the images' own size.
        root: folder of ``cifar-10-binary.tar.gz`` or of its contents; by default
            ``$DLZOO_HOME/data`` (or the platform's cache), where the archive is downloaded to.
        allow_download: whether to download missing files.
        progress: called with the number of bytes downloaded so far, and of all.

    Raises:
        DataError: a file is missing or damaged.
        DownloadError: there is no network, or the download differs from the published file.
    """
    if split not in _FILES:
        raise DataError(f"cifar-10 has the splits train and test, got {split!r}.")
    folder = root or data_folder() / "cifar-10"
    unpacked = [folder / _FOLDER, folder]
    for candidate in unpacked:
        if (candidate / _FILES[split][0]).is_file():
            contents = _read_folder(candidate, _FILES[split])
            sha256 = {name: sha256_of_file(candidate / name) for name in _FILES[split]}
            break
    else:
        archive = _find_archive(folder, root is not None, allow_download, progress)
        contents = _read_archive(archive, _FILES[split])
        sha256 = {ARCHIVE: sha256_of_file(archive)}
    records = [_records(name, contents[name]) for name in _FILES[split]]
    records_NB = np.concatenate(records)
    images_NCHW = records_NB[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
    return ArrayDataset(
        images_NCHW.transpose(0, 2, 3, 1),
        torch.from_numpy(records_NB[:, 0].astype(np.int64)),
        name="cifar-10",
        split=split,
        class_names=CLASS_NAMES,
        geometry=geometry,
        facts={
            "kind": "cifar-10",
            "source": "Krizhevsky 2009: Learning Multiple Layers of Features from Tiny Images",
            "license": "none stated by its authors",
            "sha256": sha256,
        },
    )


def _find_archive(
    folder: Path, is_given: bool, allow_download: bool, progress: Progress | None
) -> Path:
    archive = folder / ARCHIVE
    if archive.is_file():
        return archive
    for name in _PYTHON_VERSION:
        if (folder / name).exists():
            raise DataError(
                f"{folder / name} is the Python version of CIFAR-10: pickles, which can run any "
                f"code. Put the binary version there: {URL}."
            )
    if is_given:
        raise DataError(
            f"{folder} has neither {ARCHIVE} nor {_FOLDER}/. Put the archive there ({URL}), or "
            "omit the root to download it."
        )
    by_hand = f"pass the folder of {ARCHIVE} as the root"
    if not allow_download:
        raise DataError(
            f"cifar-10 is not on this machine: {archive} does not exist. Allow the download, "
            f"or {by_hand}."
        )
    return download(URL, archive, sha256=SHA256, instead=by_hand, progress=progress)


def _read_folder(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}. Unpack {ARCHIVE} again."
        ) from None


def _read_archive(archive: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Some members of the archive, by file name; nothing is written to the disk."""
    contents = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if name not in names or not member.isfile():
                    continue
                if member.size > _LARGEST_FILE_BYTES:
                    raise tarfile.TarError(f"{name} would have {member.size:,} bytes")
                stream = tar.extractfile(member)
                assert stream is not None
                contents[name] = stream.read()
                if len(contents) == len(names):
                    break
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"{archive} cannot be read: {reason}. Download it again: {URL}."
        ) from None
    if missing := [name for name in names if name not in contents]:
        raise DataError(f"{archive} has no {missing[0]}. Download it again: {URL}.")
    return contents


def _records(name: str, content: bytes) -> npt.NDArray[np.uint8]:
    num_records, rest = divmod(len(content), _RECORD_BYTES)
    if rest or not num_records:
        raise DataError(
            f"{name} of cifar-10 has {len(content):,} bytes, expected a multiple of "
            f"{_RECORD_BYTES:,} above 0. Unpack {ARCHIVE} again."
        )
    records_NB = np.frombuffer(content, np.uint8).reshape(num_records, _RECORD_BYTES)
    largest = int(records_NB[:, 0].max())
    if largest >= len(CLASS_NAMES):
        raise DataError(
            f"{name} of cifar-10: label {largest} is unknown, expected 0 to "
            f"{len(CLASS_NAMES) - 1}. Unpack {ARCHIVE} again."
        )
    return records_NB
