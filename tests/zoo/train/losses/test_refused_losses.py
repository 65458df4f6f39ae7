"""What losses refuse, and that each is chosen by its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from dlzoo.errors import ArgumentError
from dlzoo.zoo.train.losses.cross_entropy import BinaryCrossEntropy, CrossEntropy
from dlzoo.zoo.train.losses.distances import MeanSquaredError
from dlzoo.zoo.train.losses.imbalance import Dice, Focal
from dlzoo.zoo.train.losses.loss import Loss

REFUSED: dict[str, tuple[Loss, Tensor, Tensor, str]] = {
    "class beyond": (
        CrossEntropy(),
        torch.ones(2, 3),
        torch.tensor([0, 3]),
        "Loss cross-entropy: got class 3, expected 0 to 2; set num_classes to the data's.",
    ),
    "negative class": (
        Focal(),
        torch.ones(2, 3),
        torch.tensor([-1, 2]),
        "Loss focal: got class -1, expected 0 to 2; set num_classes to the data's.",
    ),
    "classes of another count": (
        BinaryCrossEntropy(),
        torch.ones(2, 3),
        torch.ones(2, 4),
        "Loss binary-cross-entropy: got targets of shape [2, 4] for outputs of shape [2, 3], "
        "expected equal shapes; set num_classes to the data's.",
    ),
    "another type": (
        MeanSquaredError(),
        torch.ones(2, 3),
        torch.ones(2, dtype=torch.int32),
        "Loss mse: got targets of type int32 and shape [2], expected int64 [2] or floats "
        "[2, 3]; correct the dataset.",
    ),
    "no classes": (
        Dice(),
        torch.ones(2),
        torch.tensor([0, 0]),
        "Loss dice: got outputs of shape [2], expected [samples, classes]; let the network end "
        "in one output for each class.",
    ),
    "too few weights": (
        CrossEntropy(class_weights=(1.0, 2.0)),
        torch.ones(2, 3),
        torch.tensor([0, 1]),
        "Loss cross-entropy: got 2 weights for 3 classes, expected one for each class; correct "
        "the list.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    loss, outputs, targets, message = REFUSED[case]
    with pytest.raises(ArgumentError) as caught:
        loss(outputs, targets)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "values",
    [
        {"name": "cross-entropy", "label_smoothing": 1.0},
        {"name": "cross-entropy", "class_weights": [-1.0, 1.0]},
        {"name": "focal", "alpha": 0.25},
        {"name": "focal", "scores": "sigmoid", "class_weights": [1.0]},
        {"name": "huber", "delta": 0.0},
        {"name": "triplet", "mining": "soft"},
        {"name": "rbf-map", "rubbish_penalty": 0.0},
        {"name": "dice", "smooth": 0.0},
    ],
    ids=str,
)
def test_numbers_out_of_bounds_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Loss](Loss).validate_python(values)


def test_every_name_is_chosen_by_it() -> None:
    names = "cross-entropy binary-cross-entropy mse mae huber contrastive triplet focal dice rbf-map"
    for name in names.split():
        assert TypeAdapter[Loss](Loss).validate_python({"name": name}).name == name
