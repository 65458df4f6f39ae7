"""The images of a run: for training, for choosing the best weights, and for testing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
    """The splits of a run; ``validation`` and ``test`` are None if absent."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None

    @property
    def parts(self) -> dict[str, Dataset]:
        """The splits that exist, by name."""
        all_of_them = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in all_of_them.items() if part is not None}


@dataclass(frozen=True)
class RunStreams(AbstractContextManager["RunStreams"]):
    """Batches of each split; their workers end when the context ends."""

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
    """Read the data of a resolved recipe, and hold out images for validation.

    Raises:
        DataError: images are missing or damaged, or the test images have other classes.
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
            f"{data.name} has the classes {', '.join(whole.class_names[:5])} for training and "
            f"{', '.join(test.class_names[:5])} for testing, expected the same."
        )
    if not data.validation:
        return RunData(whole, None, test)
    if _has_validation(data.name):
        return RunData(whole, load("val"), test)
    train, validation = split(whole, data.validation, recipe.loop.seed)
    return RunData(train, validation, test)


def _has_test(name: str) -> bool:
    """Whether a data set has test images; a folder may have none."""
    folder = Path(name).expanduser()
    if name in DATASET_NAMES or not folder.is_dir():
        return True
    return any((folder / part).is_dir() for part in SPLIT_FOLDERS["test"])


def _has_validation(name: str) -> bool:
    """Whether a folder has validation images in addition to test images."""
    folder = Path(name).expanduser()
    return name not in DATASET_NAMES and all(
        (folder / part).is_dir() for part in ("val", "test")
    )


def batches_of_pixels(dataset: Dataset) -> Iterator[Tensor]:
    """All images in order, uint8 [N, C, h, w], in chunks."""
    for start in range(0, len(dataset), _MEASURED_AT_ONCE):
        yield dataset.read(range(start, min(start + _MEASURED_AT_ONCE, len(dataset))))


def make_pipeline(recipe: Recipe, dataset: Dataset) -> Pipeline | None:
    """The augmentations of a recipe; None if it has none.

    Raises:
        ArgumentError: an augmentation does not apply to such images.
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
    """Batches for training, and batches in data set order for validation and testing."""
    loop = recipe.loop
    stream = partial(
        BatchStream,
        seed=loop.seed,
        normalize=normalization,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        num_workers=recipe.data.num_workers,
    )
    train = stream(
        data.train,
        batch_size=loop.batch_size,
        shuffle=True,
        drop_last=loop.drop_last,
        augment=pipeline,
        micro_batches=loop.micro_batches,
    )

    def to_evaluate(dataset: Dataset | None) -> BatchStream | None:
        if dataset is None:
            return None
        return stream(
            dataset,
            batch_size=loop.evaluation_batch_size * fabric.world_size,
            shuffle=False,
            drop_last=False,
        )

    return RunStreams(train, to_evaluate(data.validation), to_evaluate(data.test))


def steps_per_epoch(recipe: Recipe, dataset: Dataset) -> int:
    """Steps of the optimizer in one pass over all training images."""
    loop = recipe.loop
    return BatchStream(
        dataset,
        batch_size=loop.batch_size,
        seed=loop.seed,
        shuffle=True,
        drop_last=loop.drop_last,
    ).num_batches
