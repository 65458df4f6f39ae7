"""Metrics against scikit-learn's, and parts against the whole."""

from __future__ import annotations

import csv
import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor

from dlzoo.errors import ArgumentError
from dlzoo.zoo.train.scores.metrics import (
    ClassificationMetrics,
    MultiLabelMetrics,
    average_precision,
)
from dlzoo.zoo.train.scores.score_tables import confusion_csv, per_class_csv

SEEDS = st.integers(0, 2**32 - 1)


def classification(num: int, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Scores of which many are equal, and classes."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, size=(num, num_classes)) / 2
    return torch.from_numpy(scores), torch.from_numpy(rng.integers(num_classes, size=num))


def multi_label(num: int, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 9, size=(num, num_classes)) / 8
    return torch.from_numpy(scores).float(), torch.from_numpy(
        rng.integers(2, size=(num, num_classes))
    ).float()


def sklearns(name: str, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        # Of classes without samples.
        warnings.simplefilter("ignore")
        return getattr(sk, name)(*arguments, **options)


@settings(max_examples=40, deadline=None)
@given(num=st.integers(1, 60), num_classes=st.integers(2, 8), seed=SEEDS)
def test_classification_against_sklearn(num: int, num_classes: int, seed: int) -> None:
    outputs, targets = classification(num, num_classes, seed)
    metrics = ClassificationMetrics(num_classes, top_k=3)
    metrics.update(outputs, targets, mean_loss=0.75)
    labels = range(num_classes)
    truth, predicted = targets.numpy(), outputs.argmax(1).numpy()
    expected = sklearns("confusion_matrix", truth, predicted, labels=labels)
    assert metrics.confusion_KK.tolist() == expected.tolist()
    assert metrics.num_samples == num and metrics.loss == pytest.approx(0.75)
    assert metrics.top1 == pytest.approx(sk.accuracy_score(truth, predicted), rel=1e-12)
    # scikit-learn breaks ties the other way round: without them there is one answer.
    distinct = outputs - torch.arange(num_classes) * 1e-6
    if num_classes > 3:
        top_k = sklearns("top_k_accuracy_score", truth, distinct.numpy(), k=3, labels=labels)
        assert metrics.top_k_accuracy == pytest.approx(top_k, rel=1e-12)
    else:
        assert metrics.top_k_accuracy == 1.0
    columns = sklearns(
        "precision_recall_fscore_support",
        truth,
        predicted,
        labels=labels,
        zero_division=math.nan,
    )
    for row, precision, recall, f1, support in zip(metrics.per_class(), *columns, strict=True):
        assert row["num_samples"] == support
        for name, value in (("precision", precision), ("accuracy", recall), ("f1", f1)):
            assert row[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name
    present = sorted(set(truth.tolist()))
    f1 = sklearns("f1_score", truth, predicted, labels=present, average="macro")
    assert metrics.results() == {
        "num_samples": num,
        "loss": metrics.loss,
        "top1_percent": 100 * metrics.top1,
        "top3_percent": 100 * metrics.top_k_accuracy,
        "mean_f1_percent": pytest.approx(100 * f1, rel=1e-12),
    }


@settings(max_examples=40, deadline=None)
@given(num=st.integers(1, 40), num_classes=st.integers(1, 5), seed=SEEDS)
def test_multi_label_against_sklearn(num: int, num_classes: int, seed: int) -> None:
    scores, targets = multi_label(num, num_classes, seed)
    metrics = MultiLabelMetrics(num_classes, threshold=0.5)
    metrics.update(scores, targets)
    said = (scores > 0.5).int().numpy()
    truth = targets.int().numpy()
    rows = metrics.per_class()
    for k, row in enumerate(rows):
        assert row["num_positives"] == truth[:, k].sum()
        if truth[:, k].any():
            expected = sk.average_precision_score(truth[:, k], scores[:, k].numpy())
            assert row["average_precision"] == pytest.approx(expected, rel=1e-12)
        else:
            assert math.isnan(row["average_precision"])
        f1 = sklearns("f1_score", truth[:, k], said[:, k], zero_division=math.nan)
        assert row["f1"] == pytest.approx(f1, rel=1e-12, nan_ok=True)
    holding = [k for k in range(num_classes) if truth[:, k].any()]
    results = metrics.results()
    assert results["num_samples"] == num
    if holding:
        map_percent = 100 * np.mean([rows[k]["average_precision"] for k in holding])
        assert results["map_percent"] == pytest.approx(map_percent, rel=1e-12)
        together = sk.f1_score(truth.ravel(), said.ravel())
        assert results["f1_of_all_labels_percent"] == pytest.approx(100 * together, rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 50), max_size=4), seed=SEEDS)
def test_parts_add_up_to_the_whole(cuts: list[int], seed: int) -> None:
    bounds = [0, *sorted(cuts), 50]
    outputs, targets = classification(50, 4, seed)
    outputs[7, 2] = math.nan
    scores, labels = multi_label(50, 3, seed)
    whole, whole_labels = ClassificationMetrics(4), MultiLabelMetrics(3)
    whole.update(outputs, targets, 0.5)
    whole_labels.update(scores, labels)
    summed, summed_labels = ClassificationMetrics(4), MultiLabelMetrics(3)
    added = ClassificationMetrics(4)
    sums = {name: torch.zeros_like(value) for name, value in added.sums().items()}
    for start, stop in pairwise(bounds):
        part, part_labels = ClassificationMetrics(4), MultiLabelMetrics(3)
        part.update(outputs[start:stop], targets[start:stop], 0.5)
        part_labels.update(scores[start:stop], labels[start:stop])
        summed.merge(part)
        summed_labels.merge(part_labels)
        for name, value in part.sums().items():  # as processes add them
            sums[name] = sums[name] + value
    added.load_sums(sums)
    assert summed.results() == added.results() == whole.results()
    assert torch.equal(summed.confusion_KK, whole.confusion_KK)
    assert summed_labels.results() == whole_labels.results()
    assert all(map(torch.equal, summed_labels.samples(), whole_labels.samples()))


def test_nan_is_wrong_and_infinity_counts() -> None:
    metrics = ClassificationMetrics(3, top_k=2)
    inf, nan = math.inf, math.nan
    outputs = torch.tensor(
        [[nan, 0.0, 0.0], [nan, 5.0, 0.0], [0.0, inf, 1.0], [-inf, -inf, -inf]]
    )
    metrics.update(outputs, torch.tensor([0, 1, 1, 0]))
    assert metrics.top1 == 0.5 and metrics.top_k_accuracy == 0.5
    assert metrics.confusion_KK.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert metrics.num_nan_K.tolist() == [1, 1, 0]
    assert metrics.per_class()[1]["accuracy"] == 0.5


def test_among_equal_outputs_the_first_class_is_taken() -> None:
    metrics = ClassificationMetrics(4, top_k=2)
    metrics.update(torch.zeros(4, 4), torch.arange(4))
    assert metrics.top1 == 0.25 and metrics.top_k_accuracy == 0.5


def test_mixed_targets_count_by_their_largest_class() -> None:
    metrics = ClassificationMetrics(3)
    metrics.update(
        torch.eye(3), torch.tensor([[0.7, 0.3, 0.0], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]])
    )
    assert metrics.top1 == pytest.approx(2 / 3)


def test_nan_scores_rank_last() -> None:
    metrics = MultiLabelMetrics(1)
    metrics.update(
        torch.tensor([[math.nan], [0.9], [0.1]]), torch.tensor([[1.0], [1.0], [0.0]])
    )
    assert metrics.per_class()[0]["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.per_class()[0]["recall"] == 0.5


def test_nothing_counted_is_no_number() -> None:
    metrics = ClassificationMetrics(2)
    assert math.isnan(metrics.top1) and math.isnan(metrics.loss)
    assert math.isnan(metrics.results()["mean_f1_percent"])
    labels = MultiLabelMetrics(2)
    assert labels.num_samples == 0 and math.isnan(labels.results()["map_percent"])
    assert math.isnan(average_precision(torch.ones(2), torch.zeros(2)))


REFUSED = {
    "another number of classes": (
        torch.ones(2, 4),
        torch.tensor([0, 1]),
        "Metrics: got outputs of shape [2, 4], expected [samples, 3]; pass the scores of the classes.",
    ),
    "another number of samples": (
        torch.ones(2, 3),
        torch.tensor([0]),
        "Metrics: got targets of shape [1] for 2 samples, expected one class for each; correct "
        "the dataset.",
    ),
    "a class beyond": (
        torch.ones(2, 3),
        torch.tensor([0, 3]),
        "Metrics: got classes from 0 to 3, expected 0 to 2; set num_classes to the data's.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    outputs, targets, message = REFUSED[case]
    with pytest.raises(ArgumentError) as caught:
        ClassificationMetrics(3).update(outputs, targets)
    assert str(caught.value) == message


def test_multi_label_refusals() -> None:
    with pytest.raises(ArgumentError) as caught:
        MultiLabelMetrics(3).update(torch.ones(2, 4), torch.ones(2, 3))
    assert str(caught.value) == (
        "Metrics: got scores of shape [2, 4] and targets of shape [2, 3], expected [samples, 3] "
        "of both; set num_classes to the data's."
    )
    with pytest.raises(ArgumentError) as caught:
        MultiLabelMetrics(1).update(torch.ones(2, 1), torch.full((2, 1), 0.5))
    assert str(caught.value) == (
        "Metrics: got mixed labels, expected 0 or 1 for each class; evaluate without mixup, "
        "cutmix and mosaic."
    )


def test_tables() -> None:
    metrics = ClassificationMetrics(3)
    outputs = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [math.nan, 0.0, 0.0]])
    metrics.update(outputs, torch.tensor([0, 1, 1]))
    names = ["cat", 'dog, "big"', "bird"]
    assert list(csv.reader(confusion_csv(metrics, names).splitlines())) == [
        ["true \\ predicted", *names, "not a number"],
        ["cat", "1", "0", "0", "0"],
        ['dog, "big"', "1", "0", "0", "1"],
        ["bird", "0", "0", "0", "0"],
    ]
    assert list(csv.reader(per_class_csv(metrics, names).splitlines())) == [
        ["class", "num_samples", "accuracy", "precision", "f1"],
        ["cat", "1", "1", "0.5", "0.666667"],
        ['dog, "big"', "2", "0", "", "0"],
        ["bird", "0", "", "", ""],
    ]
    labels = MultiLabelMetrics(1)
    labels.update(torch.tensor([[0.9]]), torch.ones(1, 1))
    assert per_class_csv(labels, ["cat"]) == (
        "class,num_positives,average_precision,precision,recall,f1\ncat,1,1,1,1,1\n"
    )
    with pytest.raises(ArgumentError) as caught:
        confusion_csv(metrics, ["cat"])
    assert str(caught.value) == (
        "Class names: got 1, expected 3, one for each class; correct the dataset's."
    )
