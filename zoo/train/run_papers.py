"""What a person reads of a run: curves, augmented samples, the result on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlzoo.zoo.data.batches import BatchStream
from dlzoo.zoo.data.normalization import FittedNormalization
from dlzoo.zoo.train.prediction import Prediction
from dlzoo.zoo.train.run_folder import CURVES, SAMPLES, TEST, RunFolder


def write_samples(folder: Path, batches: BatchStream, normalization: FittedNormalization, class_names: Sequence[str]) -> None:
    pass


def write_curves(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    pass


def write_test_result(folder: RunFolder, prediction: Prediction, class_names: Sequence[str], best_epoch: int | None) -> dict[str, Any]:
    result = {
        "top1_percent": prediction.scores.top1_percent,
        "loss": prediction.scores.loss,
        "num_images": prediction.scores.num_images,
        "epoch": best_epoch,
    }
    folder.write_json(TEST, result)
    return result
