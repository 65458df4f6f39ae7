"""Quality of a classifier, counted batch by batch, with sums that add up over processes.

N   samples          K   classes
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dlzoo.errors import ArgumentError


class ClassificationMetrics:
    """Top-1, top-5, the confusion matrix, and the figures derived from them.

    A sample with a NaN among its outputs counts as wrong and is in no column of the matrix.
    Among equal outputs the first class is taken, as ``argmax`` does.

    Source:
        Russakovsky et al. 2015, "ImageNet large scale visual recognition challenge", section
        4.1 (top-5); Sokolova & Lapalme 2009, "A systematic analysis of performance measures",
        table 2.

    Args:
        num_classes: K.
        top_k: the k of the second accuracy.
    """

    def __init__(self, num_classes: int, top_k: int = 5) -> None:
        self.num_classes = num_classes
        self.top_k = top_k
        #: [K, K]: true class by row, predicted class by column.
        self.confusion_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        #: [K]: samples of each true class that have a NaN.
        self.num_nan_K = torch.zeros(num_classes, dtype=torch.int64)
        self._num_top_k = torch.zeros((), dtype=torch.int64)
        self._loss_sum = torch.zeros((), dtype=torch.float64)

    def update(self, outputs_NK: Tensor, targets: Tensor, mean_loss: float = 0.0) -> None:
        """Count a batch.

        Args:
            outputs_NK: scores; the largest is the predicted class.
            targets: int64 [N], or mixed targets as floats [N, K], of which the largest counts.
            mean_loss: mean loss over these samples.

        Raises:
            ArgumentError: the shapes do not match, or a class is out of range.
        """
        outputs_NK = outputs_NK.detach().cpu().double()
        targets_N = self._classes(outputs_NK, targets.detach().cpu())
        is_nan_N = outputs_NK.isnan().any(1)
        kept_NK, kept_N = outputs_NK[~is_nan_N], targets_N[~is_nan_N]
        cells = kept_N * self.num_classes + kept_NK.argmax(1)
        counts = torch.bincount(cells, minlength=self.num_classes**2)
        self.confusion_KK += counts.reshape(self.num_classes, self.num_classes)
        self.num_nan_K += torch.bincount(targets_N[is_nan_N], minlength=self.num_classes)
        # Classes with a larger output, or an equal one and a lower number, rank above the true one.
        own_N1 = kept_NK.gather(1, kept_N[:, None])
        is_lower_NK = torch.arange(self.num_classes) < kept_N[:, None]
        rank_N = ((kept_NK > own_N1) | ((kept_NK == own_N1) & is_lower_NK)).sum(1)
        self._num_top_k += (rank_N < self.top_k).sum()
        self._loss_sum += mean_loss * len(outputs_NK)

    def _classes(self, outputs_NK: Tensor, targets: Tensor) -> Tensor:
        if outputs_NK.dim() != 2 or outputs_NK.shape[1] != self.num_classes:
            raise ArgumentError(
                f"Metrics: got outputs of shape {list(outputs_NK.shape)}, expected [samples, "
                f"{self.num_classes}]; pass the scores of the classes."
            )
        targets_N = targets.argmax(1) if targets.is_floating_point() else targets
        if targets_N.shape != outputs_NK.shape[:1]:
            raise ArgumentError(
                f"Metrics: got targets of shape {list(targets.shape)} for {len(outputs_NK)} "
                "samples, expected one class for each; correct the dataset."
            )
        if len(targets_N) and not 0 <= int(targets_N.min()) <= int(targets_N.max()) < (
            self.num_classes
        ):
            raise ArgumentError(
                f"Metrics: got classes from {int(targets_N.min())} to {int(targets_N.max())}, "
                f"expected 0 to {self.num_classes - 1}; set num_classes to the data's."
            )
        return targets_N

    def sums(self) -> dict[str, Tensor]:
        """All counts: the sums of the parts add up to those of the whole."""
        return {
            "confusion": self.confusion_KK,
            "num_nan": self.num_nan_K,
            "num_top_k": self._num_top_k,
            "loss": self._loss_sum,
        }

    def load_sums(self, sums: Mapping[str, Tensor]) -> None:
        """Replace the counts, for example by their sums over all processes."""
        for name, value in self.sums().items():
            value.copy_(sums[name])

    def merge(self, other: ClassificationMetrics) -> None:
        """Add the counts of another instance."""
        for name, value in other.sums().items():
            self.sums()[name].add_(value)

    # -- results ---------------------------------------------------------------------------------

    @property
    def num_samples(self) -> int:
        """Number of samples counted so far."""
        return int(self.confusion_KK.sum() + self.num_nan_K.sum())

    @property
    def loss(self) -> float:
        """Mean over the samples; NaN if there are none."""
        return _ratio(float(self._loss_sum), self.num_samples)

    @property
    def top1(self) -> float:
        """Share of samples whose largest output is that of their class."""
        return _ratio(float(self.confusion_KK.trace()), self.num_samples)

    @property
    def top_k_accuracy(self) -> float:
        """Share of samples whose class is among the ``top_k`` largest outputs."""
        return _ratio(float(self._num_top_k), self.num_samples)

    def per_class(self) -> list[dict[str, float]]:
        """``num_samples``, ``accuracy`` (recall), ``precision`` and ``f1`` of each class.

        NaN where a share has denominator 0, such as the accuracy of a class without samples.
        """
        right_K = self.confusion_KK.diagonal().tolist()
        samples_K = (self.confusion_KK.sum(1) + self.num_nan_K).tolist()
        predicted_K = self.confusion_KK.sum(0).tolist()
        return [
            {
                "num_samples": samples,
                "accuracy": _ratio(right, samples),
                "precision": _ratio(right, predicted),
                "f1": _ratio(2 * right, samples + predicted),
            }
            for right, samples, predicted in zip(right_K, samples_K, predicted_K, strict=True)
        ]

    def results(self) -> dict[str, float]:
        """Figures for a row of the history, with shares in percent."""
        f1_K = [row["f1"] for row in self.per_class() if row["num_samples"]]
        return {
            "num_samples": self.num_samples,
            "loss": self.loss,
            "top1_percent": 100 * self.top1,
            f"top{self.top_k}_percent": 100 * self.top_k_accuracy,
            "mean_f1_percent": 100 * _ratio(sum(f1_K), len(f1_K)),
        }


class MultiLabelMetrics:
    """Mean average precision and F1 where a sample can have several classes.

    Scores are kept, because an average precision needs their order: 4 bytes per class and sample.
    NaN ranks below all other scores and is predicted as absent.

    Source:
        Manning, Raghavan & Schütze 2008, "Introduction to information retrieval", section 8.4
        (average precision, not interpolated) and 8.3 (F).

    Args:
        num_classes: K.
        threshold: a class is predicted if its score is larger.
    """

    def __init__(self, num_classes: int, threshold: float = 0.5) -> None:
        self.num_classes = num_classes
        self.threshold = threshold
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, scores_NK: Tensor, targets_NK: Tensor) -> None:
        """Count a batch.

        Args:
            scores_NK: probabilities, such as the sigmoid of the outputs.
            targets_NK: 1 for classes that the sample has, 0 for others.

        Raises:
            ArgumentError: the shapes do not match, or targets are not 0 or 1.
        """
        expected = (len(scores_NK), self.num_classes)
        if scores_NK.shape != expected or targets_NK.shape != expected:
            raise ArgumentError(
                f"Metrics: got scores of shape {list(scores_NK.shape)} and targets of shape "
                f"{list(targets_NK.shape)}, expected [samples, {self.num_classes}] of both; set "
                "num_classes to the data's."
            )
        targets_NK = targets_NK.detach().cpu()
        if not ((targets_NK == 0) | (targets_NK == 1)).all():
            raise ArgumentError(
                "Metrics: got mixed labels, expected 0 or 1 for each class; evaluate without "
                "mixup, cutmix and mosaic."
            )
        scores_NK = scores_NK.detach().cpu().float()
        self._scores.append(scores_NK.nan_to_num(-torch.inf, torch.inf, -torch.inf))
        self._targets.append(targets_NK.bool())

    def samples(self) -> tuple[Tensor, Tensor]:
        """All scores and targets so far, each [N, K], to be exchanged between processes."""
        if not self._scores:
            none = torch.empty(0, self.num_classes)
            return none, none.bool()
        return torch.cat(self._scores), torch.cat(self._targets)

    def merge(self, other: MultiLabelMetrics) -> None:
        """Add the samples of another instance."""
        self._scores += other._scores
        self._targets += other._targets

    @property
    def num_samples(self) -> int:
        """Number of samples counted so far."""
        return sum(len(scores) for scores in self._scores)

    def per_class(self) -> list[dict[str, float]]:
        """Figures by class: ``num_positives``, ``average_precision``, ``precision``, ``recall``, ``f1``.

        NaN where a share has denominator 0, such as the average precision of an absent class.
        """
        scores_NK, holds_NK = self.samples()
        is_said_NK = scores_NK > self.threshold
        hits_K = (is_said_NK & holds_NK).sum(0).tolist()
        said_K, positives_K = is_said_NK.sum(0).tolist(), holds_NK.sum(0).tolist()
        return [
            {
                "num_positives": positives_K[k],
                "average_precision": average_precision(scores_NK[:, k], holds_NK[:, k]),
                "precision": _ratio(hits_K[k], said_K[k]),
                "recall": _ratio(hits_K[k], positives_K[k]),
                "f1": _ratio(2 * hits_K[k], said_K[k] + positives_K[k]),
            }
            for k in range(self.num_classes)
        ]

    def results(self) -> dict[str, float]:
        """Figures for a row of the history, in percent: means over classes that have samples."""
        rows = [row for row in self.per_class() if row["num_positives"]]
        scores_NK, holds_NK = self.samples()
        is_said_NK = scores_NK > self.threshold
        hits = int((is_said_NK & holds_NK).sum())
        total = int(is_said_NK.sum() + holds_NK.sum())
        mean = {
            name: 100 * _ratio(sum(row[name] for row in rows), len(rows))
            for name in ("average_precision", "f1")
        }
        return {
            "num_samples": self.num_samples,
            "map_percent": mean["average_precision"],
            "mean_f1_percent": mean["f1"],
            "f1_of_all_labels_percent": 100 * _ratio(2 * hits, total),
        }


def average_precision(scores_N: Tensor, holds_N: Tensor) -> float:
    """Area under the steps of precision over recall; NaN without positive samples.

    ``sum_i (R_i - R_(i-1)) P_i`` over the distinct scores, from the largest down
    """
    num_positives = int(holds_N.sum())
    if not num_positives:
        return float("nan")
    scores, order = scores_N.sort(descending=True, stable=True)
    scores_array = scores.numpy()
    hits = np.cumsum(holds_N[order].numpy(), dtype=np.float64)
    # Samples with equal scores are counted together, whatever their order.
    ends = np.append(
        np.flatnonzero(scores_array[1:] != scores_array[:-1]), len(scores_array) - 1
    )
    precision, recall = hits[ends] / (ends + 1), hits[ends] / num_positives
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
