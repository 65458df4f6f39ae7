"""Files of a run for people to read: curves, augmented samples, results on the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlzoo.zoo.data.augmentation.pipeline import Pipeline
from dlzoo.zoo.data.batches import BatchStream
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.sample_grid import sample_grid
from dlzoo.zoo.train.optimize.schedules import plotted_factors
from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.run.checkpoint import replaced_file
from dlzoo.zoo.train.run.run_folder import CURVES, SAMPLES, TEST, RunFolder
from dlzoo.zoo.train.scores.curve_plot import Curve, curve_plot
from dlzoo.zoo.train.scores.metrics import ClassificationMetrics, MultiLabelMetrics
from dlzoo.zoo.train.scores.prediction import CLASS_FIGURES, Prediction
from dlzoo.zoo.train.scores.score_tables import confusion_csv, per_class_csv

_NUM_SAMPLES = 32
#: With more classes, a confusion matrix is too large to read.
_MAX_CONFUSION = 200


def write_samples(
    folder: Path, dataset: Dataset, pipeline: Pipeline | None, *, seed: int
) -> None:
    """Draw the first images of the first epoch, augmented but not normalized."""
    stream = BatchStream(
        dataset,
        batch_size=_NUM_SAMPLES,
        seed=seed,
        shuffle=True,
        drop_last=False,
        augment=pipeline,
    )
    batch = next(stream.epoch(0))
    grid = sample_grid(batch.images.clamp(0, 1), batch.targets, dataset.class_names)
    with replaced_file(folder / SAMPLES) as part:
        grid.save(part, "PNG")


def write_curves(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss and accuracy over the epochs."""
    plots = {"loss": "Loss", "top1_percent": "Top-1 accuracy, percent"}
    drawings = []
    for key, title in plots.items():
        curves = [
            Curve(name, [(row["epoch"], row[f"{part}_{key}"]) for row in rows])
            for part, name in (("train", "training"), ("validation", "validation"))
            if all(row.get(f"{part}_{key}") is not None for row in rows)
        ]
        if curves and rows:
            drawings.append(
                (key, curve_plot(curves, title=title, x_label="epoch", y_label=""))
            )
    for key, drawing in drawings:
        with replaced_file(folder / CURVES[key]) as part:
            part.write_text(drawing, encoding="utf-8")


def schedule_svg(recipe: Recipe, steps_per_epoch: int) -> str:
    """The learning rate over a run, as SVG."""
    factors = plotted_factors(recipe.schedule, recipe.loop.epochs, steps_per_epoch)
    points = [(epoch, recipe.optimizer.lr * factor) for epoch, factor in factors]
    return curve_plot(
        [Curve(recipe.schedule.name, points)],
        title="Learning rate",
        x_label="epoch",
        y_label="",
    )


def write_test_result(
    folder: RunFolder, prediction: Prediction, class_names: Sequence[str], epoch: int | None
) -> dict[str, Any]:
    """Write the figures, and tables by class if there are class scores; return the figures."""
    result = {**prediction.scores.to_json(), "epoch": epoch}
    folder.write_json(TEST, result)
    if any(key in result for key in CLASS_FIGURES):
        write_class_tables(folder.path, prediction.outputs, prediction.targets, class_names)
    return result


def write_class_tables(
    folder: Path, outputs: Tensor, targets: Tensor, class_names: Sequence[str]
) -> None:
    """Write ``classes.csv``, and ``confusion.csv`` (rows: true class, columns: predicted class)."""
    num_classes = len(class_names)
    if outputs.dim() != 2 or outputs.shape[1] != num_classes:
        return
    metrics: ClassificationMetrics | MultiLabelMetrics
    if targets.dim() == 2:
        metrics = MultiLabelMetrics(num_classes)
        metrics.update(torch.sigmoid(outputs), targets)
    else:
        metrics = ClassificationMetrics(num_classes)
        metrics.update(outputs, targets)
        if num_classes <= _MAX_CONFUSION:
            _write(folder / "confusion.csv", confusion_csv(metrics, class_names))
    _write(folder / "classes.csv", per_class_csv(metrics, class_names))


def _write(path: Path, text: str) -> None:
    with replaced_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="")
