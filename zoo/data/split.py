"""Splitting the training images into training and validation images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlzoo.errors import ArgumentError, DataError
from dlzoo.zoo.data.dataset import Dataset, Window
from dlzoo.zoo.data.sample_order import shuffled


class Subset(Dataset):
    """Some images of a data set, in a given order."""

    def __init__(
        self, whole: Dataset, indices: npt.NDArray[np.int64], split: str, share: str
    ) -> None:
        self._whole = whole
        self._indices = indices
        facts = {k: v for k, v in whole.facts.items() if k not in ("split", "num_images")}
        super().__init__(
            name=whole.name,
            split=split,
            class_names=whole.class_names,
            targets=whole.targets[torch.from_numpy(indices)],
            geometry=whole.geometry,
            facts={**facts, "share": share},
            skipped=whole.skipped,
        )

    def read(self, indices: Sequence[int], window: Window | None = None) -> Tensor:
        return self._whole.read(self._indices[np.asarray(indices, np.int64)].tolist(), window)


def split(dataset: Dataset, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """Two disjoint data sets: the images left for training, and the validation images.

    Every class contributes the same share, up to one image, and keeps at least one image for
    training. Images with several labels are drawn regardless of their labels. The same seed draws
    the same images on any machine.

    Args:
        dataset: the images to divide.
        fraction: share of validation images, above 0 and below 1.
        seed: determines which images are drawn.

    Raises:
        ArgumentError: ``fraction`` is out of range.
        DataError: there are too few images.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(f"`fraction` got {fraction}, expected 0 < fraction < 1.")
    if dataset.is_multi_label:
        groups = [np.arange(len(dataset))]
    else:
        labels = dataset.targets.numpy()
        groups = [np.flatnonzero(labels == c) for c in range(len(dataset.class_names))]
    groups = [
        group[shuffled(len(group), "validation", seed, k)] for k, group in enumerate(groups)
    ]
    counts = _shares(np.array([len(group) for group in groups]), fraction)
    held_back = np.sort(
        np.concatenate([group[:n] for group, n in zip(groups, counts, strict=True)])
    )
    if not len(held_back):
        raise DataError(
            f"{dataset.name} has {len(dataset)} images: {fraction:g} of them is less than one "
            "image for validation. Use a larger share, or none."
        )
    kept = np.setdiff1d(np.arange(len(dataset)), held_back)
    share = f"{fraction:g} of {dataset.split} held back with seed {seed}"
    return (
        Subset(dataset, kept, dataset.split, f"all but {share}"),
        Subset(dataset, held_back, "validation", share),
    )


def _shares(sizes: npt.NDArray[np.int64], fraction: float) -> npt.NDArray[np.int64]:
    """Images to draw per class: the largest remainders are rounded up until the sum is right."""
    exact = sizes * fraction
    counts = np.floor(exact).astype(np.int64)
    wanted = round(float(exact.sum())) - int(counts.sum())
    largest_first = np.argsort(-(exact - counts), kind="stable")
    counts[largest_first[: max(wanted, 0)]] += 1
    fitting: npt.NDArray[np.int64] = np.minimum(counts, np.maximum(sizes - 1, 0))
    return fitting
