"""Metrics by class as CSV text."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence

from dlzoo.errors import ArgumentError
from dlzoo.zoo.train.scores.metrics import ClassificationMetrics, MultiLabelMetrics


def per_class_csv(
    metrics: ClassificationMetrics | MultiLabelMetrics, class_names: Sequence[str]
) -> str:
    """A row for each class with its name, samples and figures; NaN becomes an empty cell.

    Raises:
        ArgumentError: the number of names is not the number of classes.
    """
    _require_names(metrics.num_classes, class_names)
    rows = metrics.per_class()
    header = ["class", *(rows[0] if rows else ())]
    return _text(
        [header, *([name, *_cells(row)] for name, row in zip(class_names, rows, strict=True))]
    )


def confusion_csv(metrics: ClassificationMetrics, class_names: Sequence[str]) -> str:
    """The confusion matrix, with a row for each true class and a column for each predicted one.

    The last column counts samples with NaN among their outputs.

    Raises:
        ArgumentError: the number of names is not the number of classes.
    """
    _require_names(metrics.num_classes, class_names)
    matrix, num_nan = metrics.confusion_KK.tolist(), metrics.num_nan_K.tolist()
    rows = [
        [name, *row, nan] for name, row, nan in zip(class_names, matrix, num_nan, strict=True)
    ]
    return _text([["true \\ predicted", *class_names, "not a number"], *rows])


def _require_names(num_classes: int, class_names: Sequence[str]) -> None:
    if len(class_names) != num_classes:
        raise ArgumentError(
            f"Class names: got {len(class_names)}, expected {num_classes}, one for each class; "
            "correct the dataset's."
        )


def _cells(row: Mapping[str, float]) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.6g}" for value in row.values()]


def _text(rows: Iterable[Iterable[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
