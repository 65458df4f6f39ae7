"""A folder of images: ``train/CLASS/IMAGE``, and ``test/`` or ``val/`` beside ``train/``."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from dlzoo.errors import DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.dataset import Dataset, SkippedImage
from dlzoo.zoo.data.file_dataset import FileDataset, OnCorrupt, Progress, find_unreadable

#: The folders that may hold a split; the first one that exists is used.
SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val"), "val": ("val",)}
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def load_image_folder(
    folder: Path,
    *,
    split: str,
    geometry: Geometry,
    on_corrupt: OnCorrupt = "refuse",
    progress: Progress | None = None,
) -> Dataset:
    """One split of a folder of images; its classes are the folders under ``train/``, sorted.

    Without ``train/``, the classes are the folders under the split's own folder.

    A class has every image file at any depth below its folder. Hidden files and files without an
    image's suffix are ignored.

    Args:
        folder: contains ``train/`` and ``test/`` or ``val/``.
        split: ``train``, ``test`` (``val/`` if there is no ``test/``), or ``val``.
        geometry: how images become an input.
        on_corrupt: with ``refuse`` reading an image that cannot be decoded is an error; with
            ``skip`` every image is decoded once now, and those that cannot be are left out.
        progress: called with the number of images checked so far, and of all.

    Raises:
        DataError: a folder is missing, unreadable or empty, or a class exists in only one of the
            splits.
    """
    name = folder.resolve().name
    split_folder = _split_folder(folder, split)
    # For evaluation alone there may be no training images.
    has_train = (folder / "train").is_dir()
    class_names = _subfolders(folder / "train" if has_train else split_folder, folder)
    if not class_names:
        place = "train" if has_train else split_folder.name
        raise DataError(
            f"{folder}/{place} has no folders, expected one for each class: {place}/CLASS/IMAGE."
        )
    if (found := _subfolders(split_folder, folder)) != class_names:
        raise DataError(_difference(split_folder.name, found, class_names, name))
    paths, labels = [], []
    for label, class_name in enumerate(class_names):
        images = _images(split_folder / class_name, folder)
        if not images:
            raise DataError(
                f"{split_folder.name}/{class_name} of {name} has no images, expected files that "
                f"end in {', '.join(SUFFIXES)}. Add some, or delete the class in every split."
            )
        paths += images
        labels += [label] * len(images)
    skipped: tuple[SkippedImage, ...] = ()
    if on_corrupt == "skip":
        skipped = find_unreadable(
            folder, paths, name=name, geometry=geometry, progress=progress
        )
        left_out = {image.path for image in skipped}
        kept = [k for k, path in enumerate(paths) if path not in left_out]
        paths, labels = [paths[k] for k in kept], [labels[k] for k in kept]
        labels_left = set(labels)
        for label, class_name in enumerate(class_names):
            if label not in labels_left:
                place = f"{split_folder.name}/{class_name}/"
                reason = next(i.reason for i in skipped if i.path.startswith(place))
                raise DataError(
                    f"{place} of {name} has no readable images; the first: {reason}"
                )
    return FileDataset(
        folder,
        paths,
        targets=torch.tensor(labels),
        name=name,
        split=split,
        class_names=class_names,
        geometry=geometry,
        facts={"kind": "image-folder"},
        skipped=skipped,
    )


def _split_folder(folder: Path, split: str) -> Path:
    if split not in SPLIT_FOLDERS:
        raise DataError(
            f"{folder.name} can have the splits {', '.join(SPLIT_FOLDERS)}, got {split!r}."
        )
    for name in SPLIT_FOLDERS[split]:
        if (folder / name).is_dir():
            return folder / name
    wanted = " or ".join(f"{name}/" for name in SPLIT_FOLDERS[split])
    inside = ", ".join(sorted(_subfolders(folder, folder))[:5]) or "no folders"
    raise DataError(
        f"{folder} has no {wanted}, got {inside}. Expected train/CLASS/IMAGE and the same classes "
        "under test/ or val/."
    )


def _subfolders(folder: Path, root: Path) -> tuple[str, ...]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError as error:
        raise _unreadable(error, root) from None
    return tuple(sorted(names))


def _images(folder: Path, root: Path) -> list[str]:
    """Every image below a folder, relative to ``root``, sorted so that all machines agree."""

    def refuse(error: OSError) -> None:
        raise _unreadable(error, root)

    found = []
    for parent, subfolders, names in os.walk(folder, onerror=refuse, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        place = Path(parent).relative_to(root).as_posix()
        found += [
            f"{place}/{name}"
            for name in names
            if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    return sorted(found)


def _unreadable(error: OSError, root: Path) -> DataError:
    path = Path(error.filename)
    place = path.relative_to(root).as_posix()
    called = f"The folder {place} of {root.resolve().name}" if place != "." else str(root)
    return DataError(
        f"{called} cannot be read: {error.strerror}. Change its permissions, or move it away."
    )


def _difference(
    split: str, found: tuple[str, ...], expected: tuple[str, ...], name: str
) -> str:
    missing = [c for c in expected if c not in found]
    unknown = [c for c in found if c not in expected]
    parts = []
    if missing:
        parts.append(f"lacks the class {', '.join(missing[:3])}{', …' * (len(missing) > 3)}")
    if unknown:
        parts.append(
            f"has the unknown class {', '.join(unknown[:3])}{', …' * (len(unknown) > 3)}"
        )
    return (
        f"{split}/ of {name} {' and '.join(parts)}; expected the {len(expected)} folders of "
        "train/. Give every split the same class folders."
    )
