"""Small data sets on disk, for tests."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from dlzoo.image_file import Geometry

DIGIT_28 = Geometry(color="L", resize_size=28, crop_size=(28, 28))
DIGIT_32 = Geometry(color="L", resize_size=28, crop_size=(32, 32))
SMALL_RGB = Geometry(color="RGB", resize_size=12, crop_size=(10, 8))


def idx_bytes(values: np.ndarray, *, magic: bytes | None = None) -> bytes:
    header = magic or bytes((0, 0, 8, values.ndim))
    return header + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_idx(
    folder: Path, images_NHW: np.ndarray, labels_N: np.ndarray, *, prefix: str = "train"
) -> None:
    """The two files of a split, the images compressed."""
    folder.mkdir(exist_ok=True)
    images = gzip.compress(idx_bytes(images_NHW), 1)
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(images)
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels_N))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_images(root: Path, *paths: str) -> None:
    """A picture of its own size at each path."""
    for k, path in enumerate(paths):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(20 + k, 17 + 2 * k, 3, seed=k)).save(target)


def write_folder(root: Path) -> Path:
    """Two classes, two splits."""
    write_images(
        root,
        *("train/cat/a.png", "train/cat/deep/b.jpg", "train/dog/c.webp", "train/dog/d.bmp"),
        *("test/cat/e.png", "test/dog/f.PNG"),
    )
    (root / "train/cat/notes.txt").write_text("no image")
    (root / "train/cat/.hidden.png").write_text("no image")
    return root
