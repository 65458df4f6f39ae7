"""MNIST and Fashion-MNIST: images and labels in IDX files.

**Source** LeCun, Cortes, Burges, "The MNIST database of handwritten digits" (the format is
described on its page); Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms".

Shapes: N images, H and W their height and width.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dlzoo.errors import DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.array_dataset import ArrayDataset
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.labels import load_labels
from dlzoo.zoo.download import Progress, data_folder, download

#: The first two bytes are 0, the third is the type (8: unsigned bytes), the fourth the number of
#: dimensions; then each dimension as a big-endian 32-bit integer.
_UNSIGNED_BYTES = 8
_CHUNK_BYTES = 2**20

_IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
_LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}


@dataclass(frozen=True, kw_only=True)
class IdxFiles:
    """Sources and digests of the four files of a data set."""

    name: str
    class_names: tuple[str, ...]
    url: str
    #: Digests of the compressed files at ``url``.
    sha256_of_archive: Mapping[str, str]
    #: Digests of their contents.
    sha256_of_content: Mapping[str, str]
    license: str
    source: str
    system_folder: Path | None = None
    system_package: str | None = None


#: The digests of the archives are those of TensorFlow Datasets (``url_checksums/mnist.txt``).
MNIST = IdxFiles(
    name="mnist",
    class_names=load_labels("mnist"),
    url="https://storage.googleapis.com/cvdf-datasets/mnist/",
    sha256_of_archive={
        "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    sha256_of_content={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    license="CC BY-SA 3.0, as the documentation of Keras says",
    source="LeCun, Cortes, Burges: The MNIST database of handwritten digits",
)

#: The digests of the archives are those of TensorFlow Datasets
#: (``url_checksums/fashion_mnist.txt``).
FASHION_MNIST = IdxFiles(
    name="fashion-mnist",
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    sha256_of_archive={
        "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    sha256_of_content={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    license="MIT",
    source="Xiao, Rasul, Vollgraf 2017: Fashion-MNIST",
    system_folder=Path("/usr/share/datasets/fashion-mnist"),
    system_package="dataset-fashion-mnist",
)


def load_idx(
    files: IdxFiles,
    *,
    split: str,
    geometry: Geometry,
    root: Path | None = None,
    allow_download: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """One split of a data set of IDX files, plain or ``.gz``.

    Files are searched for only in ``root`` if that is given; otherwise in the folder of the system's
    package, then in ``$DLZOO_HOME/data`` (or the platform's cache), where they are downloaded to.

    Raises:
        DataError: a file is missing or damaged, or images and labels do not match.
        DownloadError: there is no network, or the download differs from the published file.
    """
    if split not in _IMAGES:
        raise DataError(f"{files.name} has the splits train and test, got {split!r}.")
    images_path, labels_path = (
        _find(files, stems[split], root, allow_download, progress)
        for stems in (_IMAGES, _LABELS)
    )
    images_NHW, images_sha256 = read_idx(images_path, num_dims=3)
    labels_N, labels_sha256 = read_idx(labels_path, num_dims=1)
    if len(images_NHW) != len(labels_N):
        raise DataError(
            f"{images_path.name} has {len(images_NHW):,} images, but {labels_path.name} has "
            f"{len(labels_N):,} labels, expected equal numbers. Get both files again."
        )
    num_classes = len(files.class_names)
    if labels_N.max() >= num_classes:
        raise DataError(
            f"{labels_path.name}: label {labels_N.max()} is unknown, expected 0 to "
            f"{num_classes - 1}. Use the labels of {files.name}."
        )
    sha256 = {_IMAGES[split]: images_sha256, _LABELS[split]: labels_sha256}
    known = files.sha256_of_content
    return ArrayDataset(
        images_NHW[..., np.newaxis],
        torch.from_numpy(labels_N.astype(np.int64)),
        name=files.name,
        split=split,
        class_names=files.class_names,
        geometry=geometry,
        facts={
            "kind": "idx",
            "source": files.source,
            "license": files.license,
            "sha256": sha256,
            "is_as_published": all(known[stem] == digest for stem, digest in sha256.items()),
        },
    )


def read_idx(path: Path, *, num_dims: int) -> tuple[npt.NDArray[np.uint8], str]:
    """The unsigned bytes of an IDX file, plain or ``.gz``, and the sha256 of its contents.

    Raises:
        DataError: the file is missing, damaged, or has other contents.
    """
    header_bytes = 4 + 4 * num_dims
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(header_bytes)
            magic = bytes((0, 0, _UNSIGNED_BYTES, num_dims))
            if header[:4] != magic:
                raise DataError(
                    f"{path} begins with {header[:4].hex() or 'nothing'}, expected "
                    f"{magic.hex()}: unsigned bytes in {num_dims} dimensions. "
                    "Give an IDX file like those of MNIST."
                )
            dims = np.frombuffer(header[4:].ljust(4 * num_dims, b"\0"), ">u4").tolist()
            expected_bytes = math.prod(dims)
            content = bytearray()
            # In chunks, because a damaged header may announce more bytes than fit into memory.
            while chunk := stream.read(_CHUNK_BYTES):
                content += chunk
                if len(content) > expected_bytes:
                    break
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Give the path of an IDX file.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read: {reason}. Get it again.") from None
    if len(content) != expected_bytes or not expected_bytes:
        got = "more" if len(content) > expected_bytes else f"{len(content):,}"
        raise DataError(
            f"{path} announces {' x '.join(map(str, dims))} = {expected_bytes:,} bytes, "
            f"got {got}. Get it again."
        )
    digest = hashlib.sha256(header)
    digest.update(content)
    return np.frombuffer(content, np.uint8).reshape(dims), digest.hexdigest()


def _find(
    files: IdxFiles,
    stem: str,
    root: Path | None,
    allow_download: bool,
    progress: Progress | None,
) -> Path:
    """The path of one of the files, downloaded if necessary."""
    own_folder = data_folder() / files.name
    folders = [root] if root else [files.system_folder, own_folder]
    for folder in filter(None, folders):
        for name in (stem, f"{stem}.gz"):
            if (folder / name).is_file():
                return folder / name
    package = files.system_package
    by_hand = "pass the folder of the four files as the root"
    if package:
        by_hand += f' or run "apt install {package}"'
    if root is not None:
        raise DataError(
            f"{root} has neither {stem} nor {stem}.gz. Put the files of {files.name} there, or "
            "omit the root to download them."
        )
    if not allow_download:
        raise DataError(
            f"{files.name} is not on this machine: {own_folder} has neither {stem} nor "
            f"{stem}.gz. Allow the download, or {by_hand}."
        )
    return download(
        f"{files.url}{stem}.gz",
        own_folder / f"{stem}.gz",
        sha256=files.sha256_of_archive[stem],
        instead=by_hand,
        progress=progress,
    )
