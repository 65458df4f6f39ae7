"""The images of a run: to train on, to choose the best weights by, to test with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from dlzoo.errors import DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.augmentation.pipeline import Pipeline
from dlzoo.zoo.data.batches import BatchStream
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.dataset_source import DATASET_NAMES, load_dataset
from dlzoo.zoo.data.datasets.image_folder import SPLIT_FOLDERS
from dlzoo.zoo.data.normalization import FittedNormalization
from dlzoo.zoo.data.split import split
from dlzoo.zoo.train.recipes.recipe import Recipe

#: Images read at once to measure them.
_MEASURED_AT_ONCE = 1024


@dataclass(frozen=True)
class RunData:
    """The splits of a run; ``validation`` or ``test`` is None where there is none."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None

    @property
    def parts(self) -> dict[str, Dataset]:
        """Those that there are."""
        all_of_them = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in all_of_them.items() if part is not None}


@dataclass(frozen=True)
class RunStreams(AbstractContextManager["RunStreams"]):
    """Batches of each split; at the end their workers end, too."""

    train: BatchStream
    validation: BatchStream | None
    test: BatchStream | None

    def __exit__(self, *_: object) -> None:
        for stream in (self.train, self.validation, self.test):
            if stream is not None:
                stream.close()


def load_run_data(
    recipe: Recipe, geometry: Geometry, on_bytes: Callable[[int, int], None] | None
) -> RunData:
    """Read what a resolved recipe names, and hold images back to validate with.

    Raises:
        DataError: they are missing, damaged, or the test images are of other classes.
    """
    data = recipe.data

    def load(part: str) -> Dataset:
        return load_dataset(
            data.name,
            split=part,
            geometry=geometry,
            root=data.root,
            on_corrupt=data.on_corrupt,
            progress=on_bytes,
        )

    whole = load("train")
    test = load("test") if _has_test(data.name) else None
    if test is not None and test.class_names != whole.class_names:
        raise DataError(
            f"{data.name} has the classes {', '.join(whole.class_names[:5])} to train on and "
            f"{', '.join(test.class_names[:5])} to test with, expected the same."
        )
    if not data.validation:
        return RunData(whole, None, test)
    if _has_validation(data.name):
        return RunData(whole, load("val"), test)
    train, validation = split(whole, data.validation, recipe.loop.seed)
    return RunData(train, validation, test)


def _has_test(name: str) -> bool:
    """False of a folder that holds training images alone."""
    folder = Path(name).expanduser()
    if name in DATASET_NAMES or not folder.is_dir():
        return True
    return any((folder / part).is_dir() for part in SPLIT_FOLDERS["test"])


def _has_validation(name: str) -> bool:
    """True of a folder that has images to validate with beside those to test with."""
    folder = Path(name).expanduser()
    return name not in DATASET_NAMES and all(
        (folder / part).is_dir() for part in ("val", "test")
    )


def batches_of_pixels(dataset: Dataset) -> Iterator[Tensor]:
    """All images in order, uint8 [N, C, h, w], some at a time."""
    for start in range(0, len(dataset), _MEASURED_AT_ONCE):
        yield dataset.read(range(start, min(start + _MEASURED_AT_ONCE, len(dataset))))


def make_pipeline(recipe: Recipe, dataset: Dataset) -> Pipeline | None:
    """The augmentations of a recipe; None where it has none.

    Raises:
        ArgumentError: one of them is not for such images.
    """
    if not recipe.augmentation:
        return None
    return Pipeline(
        recipe.augmentation,
        num_classes=len(dataset.class_names),
        num_channels=dataset.num_channels,
        seed=recipe.loop.seed,
    )


def make_streams(
    recipe: Recipe,
    data: RunData,
    normalization: FittedNormalization,
    pipeline: Pipeline | None,
    fabric: Fabric,
) -> RunStreams:
    """Batches to train on, and in the data's own order those to judge by."""
    loop = recipe.loop
    shared: dict[str, Any] = {
        "seed": loop.seed,
        "normalize": normalization,
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
        "num_workers": recipe.data.num_workers,
    }
    train = BatchStream(
        data.train,
        batch_size=loop.batch_size,
        shuffle=True,
        drop_last=loop.drop_last,
        augment=pipeline,
        micro_batches=loop.micro_batches,
        **shared,
    )

    def to_judge_by(dataset: Dataset | None) -> BatchStream | None:
        if dataset is None:
            return None
        return BatchStream(
            dataset,
            batch_size=loop.evaluation_batch_size * fabric.world_size,
            shuffle=False,
            drop_last=False,
            **shared,
        )

    return RunStreams(train, to_judge_by(data.validation), to_judge_by(data.test))


def steps_per_epoch(recipe: Recipe, dataset: Dataset) -> int:
    """Steps of the optimizer for all training images once."""
    loop = recipe.loop
    return BatchStream(
        dataset,
        batch_size=loop.batch_size,
        seed=loop.seed,
        shuffle=True,
        drop_last=loop.drop_last,
    ).num_batches
