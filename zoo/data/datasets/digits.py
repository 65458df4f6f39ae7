"""scikit-learn's handwritten digits: 1797 images of 8 x 8 pixels that need no download.

**Source** Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository; ``sklearn.datasets.load_digits`` is a copy of its test set.
"""

from __future__ import annotations

import numpy as np
import torch

from dlzoo.errors import DataError, InstallationError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.array_dataset import ArrayDataset
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.labels import load_labels

#: The last 360 of the 1797 images, a fifth, are the test split.
NUM_TEST = 360
#: Each pixel counts the dots of ink in a field of 4 x 4.
_MOST_INK = 16


def load_digits(*, split: str, geometry: Geometry) -> Dataset:
    """One split of the digits: the first 1437 images for training, the last 360 for testing.

    The order of the file is kept because it goes from writer to writer: a random fifth would test
    on writers that were trained on. Ink v of 0 … 16 becomes the grey level
    ``floor((255 v + 8) / 16)``, that is 255 v / 16 rounded to nearest, halves up.

    Raises:
        DataError: there is no such split.
        InstallationError: scikit-learn is not installed.
    """
    parts = {"train": slice(None, -NUM_TEST), "test": slice(-NUM_TEST, None)}
    if split not in parts:
        raise DataError(f"digits has the splits train and test, got {split!r}.")
    try:
        from sklearn import datasets
    except ImportError:
        raise InstallationError(
            "The digits come with scikit-learn, which is not installed. "
            'Run: pip install "dlzoo[train]".'
        ) from None
    digits = datasets.load_digits()
    ink_NHW = digits.images[parts[split]].astype(np.int64)
    pixels_NHW = ((255 * ink_NHW + _MOST_INK // 2) // _MOST_INK).astype(np.uint8)
    return ArrayDataset(
        pixels_NHW[..., np.newaxis],
        torch.from_numpy(digits.target[parts[split]].astype(np.int64)),
        name="digits",
        split=split,
        class_names=load_labels("mnist"),
        geometry=geometry,
        facts={
            "kind": "digits",
            "source": "Alpaydin, Kaynak 1998: Optical Recognition of Handwritten Digits",
            "license": "CC BY 4.0",
        },
    )
