"""scikit-learn's digits: the scaling and the split that the documentation states."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dlzoo.errors import ArgumentError, DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.dataset_source import load_dataset

GEOMETRY = Geometry(color="L", resize_size=8, crop_size=(8, 8))


def test_split_and_levels() -> None:
    original = load_digits()
    train = load_dataset("digits", split="train", geometry=GEOMETRY)
    test = load_dataset("digits", split="test", geometry=GEOMETRY)
    assert (len(train), len(test)) == (1437, 360)
    assert torch.cat([train.targets, test.targets]).tolist() == original.target.tolist()
    level_of = [floor(Fraction(255 * ink, 16) + Fraction(1, 2)) for ink in range(17)]
    assert (level_of[0], level_of[8], level_of[16]) == (0, 128, 255)
    expected = np.array(level_of)[original.images.astype(int)]
    pixels = torch.cat([train.read(range(1437)), test.read(range(360))])[:, 0]
    np.testing.assert_array_equal(pixels.numpy(), expected)
    assert set(test.targets.tolist()) == set(range(10))
    assert train.facts["license"] == "CC BY 4.0"


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"^digits has the splits train and test, got 'val'.$"):
        load_dataset("digits", split="val", geometry=GEOMETRY)
    with pytest.raises(
        ArgumentError, match=r"^The digits come with scikit-learn. Omit `root`"
    ):
        load_dataset("digits", split="test", geometry=GEOMETRY, root=".")
