"""Training: a recipe and a data set become a run, which exports like any model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor

    from dlzoo.export.sources.architecture import Architecture
    from dlzoo.zoo.data.augmentation.pipeline import Pipeline
    from dlzoo.zoo.data.batches import BatchStream
    from dlzoo.zoo.data.dataset import Dataset
    from dlzoo.zoo.data.normalization import FittedNormalization
    from dlzoo.zoo.registry import Preprocessing
    from dlzoo.zoo.train.prediction import Prediction
    from dlzoo.zoo.train.recipe import Recipe
    from dlzoo.zoo.train.run_folder import RunFolder
    from dlzoo.zoo.train.trainer import OnReport

OnText = Callable[[str], None]

#: Images read at once to measure them.
_MEASURED_AT_ONCE = 1024
#: Images that a layer-sequential initialization looks at.
_INITIALIZATION_BATCH = 256


@dataclass(frozen=True)
class Run:
    """What a training run gave; ``test`` is None where the data have no test images."""

    folder: Path
    rows: list[dict[str, Any]]
    best_epoch: int
    test: dict[str, Any] | None


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    on_report: OnReport | None = None,
    on_stage: OnText | None = None,
    on_note: OnText | None = None,
    on_bytes: Callable[[int, int], None] | None = None,
) -> Run:
    """Train a network.

    Started by torchrun, every process calls this with the same arguments and the first one
    writes. A run that is resumed ends with the same weights, bit by bit, as one that was never
    stopped, on the same machine and number of processes.

    Args:
        recipe: every number; of a run that is resumed, its own.
        folder: of the run, see :mod:`dlzoo.zoo.train.run_folder`.
        resume: go on from the folder's last checkpoint.
        device: ``auto``, ``cpu`` or ``cuda``.
        on_report: is told of steps and epochs.
        on_stage: is told what runs before and after the epochs.
        on_note: is told what the user should know.
        on_bytes: is told how far a download is.

    Raises:
        DlzooError: what is wrong with the recipe, the data or the folder.
        TrainingError: the loss is no number, or memory is too small.
    """
    from dlzoo.zoo.train.processes import make_fabric
    from dlzoo.zoo.train.run_folder import RunFolder

    stage = on_stage or _say_nothing
    note = on_note or _say_nothing
    fabric = make_fabric(device=device, precision=recipe.loop.precision)
    if not fabric.is_global_zero:
        stage = note = _say_nothing
    recipe = resolve_recipe(recipe)
    path = Path(folder)
    if resume:
        run_folder = RunFolder.open(path)
    elif fabric.is_global_zero:
        run_folder = RunFolder.create(path, recipe)
    else:
        run_folder = RunFolder(path)
    with run_folder.locked() if fabric.is_global_zero else nullcontext():
        return _train(recipe, run_folder, fabric, resume, on_report, stage, note, on_bytes)


def _train(
    recipe: Recipe,
    folder: RunFolder,
    fabric: Fabric,
    resume: bool,
    on_report: OnReport | None,
    stage: OnText,
    note: OnText,
    on_bytes: Callable[[int, int], None] | None,
) -> Run:
    import torch

    from dlzoo.zoo.train.checkpoint import seed_random_streams
    from dlzoo.zoo.train.run_folder import BEST
    from dlzoo.zoo.train.run_papers import write_curves, write_samples, write_test_result
    from dlzoo.zoo.train.trained_network import best_weights, save_normalization
    from dlzoo.zoo.train.trainer import Trainer

    stage("read the images")
    # One process downloads; the others find the files.
    with fabric.rank_zero_first():
        data = _load_data(recipe, on_bytes)
    for skipped in data.train.skipped:
        note(f"left out {skipped.path}: {skipped.reason}")
    stage("measure the images")
    normalization = recipe.normalization.fit(
        _pixels(data.train), preprocessing=_card_preprocessing(recipe)
    )
    for text in normalization.notes:
        note(text)
    stage("build the network")
    seed_random_streams(recipe.loop.seed + fabric.global_rank)
    if recipe.loop.deterministic and fabric.device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    architecture = _initialized(recipe, data.train, normalization, note)
    pipeline = _pipeline(recipe, data.train)
    batches, validation, test = _streams(recipe, data, normalization, pipeline, fabric)
    if fabric.is_global_zero and not resume:
        save_normalization(folder.path, normalization)
        folder.write_json(
            "run.json", _facts(recipe, data, normalization, architecture, fabric)
        )
        write_samples(folder.path, data.train, pipeline, seed=recipe.loop.seed)
    trainer = Trainer(
        recipe,
        architecture.network,
        batches=batches,
        validation=validation,
        folder=folder,
        fabric=fabric,
        on_report=on_report or _report_nothing,
    )
    try:
        if resume:
            trainer.resume()
        rows = trainer.run()
        stage("test")
        architecture.network.load_state_dict(best_weights(folder.path / BEST))
        result = None
        if test is not None:
            prediction = _tested(architecture, test, recipe, fabric)
            if fabric.is_global_zero:
                result = write_test_result(
                    folder, prediction, data.train.class_names, trainer.progress.best_epoch
                )
    finally:
        for stream in (batches, validation, test):
            if stream is not None:
                stream.close()
    if fabric.is_global_zero:
        write_curves(folder.path, rows)
    return Run(folder.path, rows, trainer.progress.best_epoch or len(rows), result)


def resolve_recipe(recipe: Recipe) -> Recipe:
    """Fill in what a recipe leaves to the model: colours and the size of images.

    Raises:
        UnknownModelError: no model has that name.
        ArgumentError: the model has no card, and the recipe does not say how large images are.
    """
    from dlzoo.export.sources.architecture import default_preprocessing

    data = recipe.data
    own = default_preprocessing(recipe.model.name)
    if own is None:
        if data.image_size is None:
            raise ArgumentError(
                f"{recipe.model.name} has no card that says how large its images are. Write for "
                "example --image-size 32,32 (data.image_size = [32, 32])."
            )
        color, size = data.color or "RGB", data.image_size
        resize_size: int | str = data.resize_size or "none"
    else:
        color, size = data.color or own.color, data.image_size or own.crop_size
        if data.resize_size is not None:
            resize_size = data.resize_size
        elif data.image_size is None:
            resize_size = own.resize_size or "none"
        else:
            # Another size: the shorter side becomes it, nothing is cut off a square.
            resize_size = min(size)
    resolved = data.model_copy(
        update={"color": color, "image_size": size, "resize_size": resize_size}
    )
    return recipe.model_copy(update={"data": resolved})


def geometry_of(recipe: Recipe) -> Preprocessing:
    """How a resolved recipe makes pixels of an image file; mean and std stand for none."""
    from dlzoo.export.sources.architecture import default_preprocessing
    from dlzoo.zoo.registry import Preprocessing

    data = recipe.data
    assert data.color is not None and data.image_size is not None, "a recipe is resolved first"
    own = default_preprocessing(recipe.model.name)
    num_channels = 3 if data.color == "RGB" else 1
    return Preprocessing(
        color=data.color,
        resize_size=None if data.resize_size in (None, "none") else int(data.resize_size),
        crop_size=data.image_size,
        interpolation=own.interpolation if own else "bilinear",
        mean=(0.0,) * num_channels,
        std=(1.0,) * num_channels,
    )


def schedule_plot(recipe: Recipe) -> str:
    """The learning rate over a run, as SVG.

    Raises:
        DataError: the data set, whose size says how many steps an epoch has, cannot be read.
    """
    from dlzoo.zoo.train.run_papers import schedule_svg

    data = _load_data(recipe, None)
    steps = -(-len(data.train) // recipe.loop.batch_size)
    return schedule_svg(recipe, steps)


# -- the parts ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Data:
    train: Dataset
    validation: Dataset | None
    test: Dataset | None


def _load_data(recipe: Recipe, on_bytes: Callable[[int, int], None] | None) -> _Data:
    from dlzoo.image_file import Geometry
    from dlzoo.zoo.data.dataset_source import load_dataset
    from dlzoo.zoo.data.split import split

    geometry = Geometry.of(geometry_of(recipe))
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
    test = load("test")
    if test.class_names != whole.class_names:
        raise DataError(
            f"{data.name} has the classes {', '.join(whole.class_names[:5])} to train on and "
            f"{', '.join(test.class_names[:5])} to test with, expected the same."
        )
    if not data.validation:
        return _Data(whole, None, test)
    train, validation = split(whole, data.validation, recipe.loop.seed)
    return _Data(train, validation, test)


def _card_preprocessing(recipe: Recipe) -> Preprocessing | None:
    from dlzoo.export.sources.architecture import default_preprocessing

    return default_preprocessing(recipe.model.name)


def _pixels(dataset: Dataset) -> Iterator[Tensor]:
    for start in range(0, len(dataset), _MEASURED_AT_ONCE):
        yield dataset.read(range(start, min(start + _MEASURED_AT_ONCE, len(dataset))))


def _initialized(
    recipe: Recipe, dataset: Dataset, normalization: FittedNormalization, note: OnText
) -> Architecture:
    """The network as training begins: drawn anew, or with weights that were trained before."""
    from dlzoo.export.sources.architecture import build_architecture
    from dlzoo.zoo.train.starting_weights import starting_weights

    height, width = dataset.geometry.crop_size
    model = recipe.model
    architecture = build_architecture(
        model.name,
        num_classes=len(dataset.class_names),
        input_shape=(dataset.num_channels, height, width),
        arguments=model.arguments,
        seed=recipe.loop.seed,
    )
    count = min(_INITIALIZATION_BATCH, len(dataset))
    first = normalization(dataset.read(range(count)).float() / 255)
    recipe.initialization.apply(architecture.network, first, recipe.loop.seed)
    if model.weights != "none":
        weights, subject = starting_weights(model.name, model.weights)
        drawn = recipe.transfer.load(architecture.network, weights, subject)
        if drawn:
            note(f"{subject}: {', '.join(drawn)} are drawn anew.")
    return architecture


def _pipeline(recipe: Recipe, dataset: Dataset) -> Pipeline | None:
    from dlzoo.zoo.data.augmentation.pipeline import Pipeline

    if not recipe.augmentation:
        return None
    return Pipeline(
        recipe.augmentation,
        num_classes=len(dataset.class_names),
        num_channels=dataset.num_channels,
        seed=recipe.loop.seed,
    )


def _streams(
    recipe: Recipe,
    data: _Data,
    normalization: FittedNormalization,
    pipeline: Pipeline | None,
    fabric: Fabric,
) -> tuple[BatchStream, BatchStream | None, BatchStream | None]:
    from dlzoo.zoo.data.batches import BatchStream

    loop = recipe.loop
    shared: dict[str, Any] = {
        "seed": loop.seed,
        "normalize": normalization,
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
        "num_workers": recipe.data.num_workers,
    }
    batches = BatchStream(
        data.train,
        batch_size=loop.batch_size,
        shuffle=True,
        drop_last=loop.drop_last,
        augment=pipeline,
        micro_batches=loop.micro_batches,
        **shared,
    )
    others = [
        BatchStream(
            dataset,
            batch_size=loop.evaluation_batch_size * fabric.world_size,
            shuffle=False,
            drop_last=False,
            **shared,
        )
        if dataset is not None
        else None
        for dataset in (data.validation, data.test)
    ]
    return batches, others[0], others[1]


def _tested(
    architecture: Architecture, test: BatchStream, recipe: Recipe, fabric: Fabric
) -> Prediction:
    from dlzoo.zoo.train.prediction import predict

    return predict(architecture.network, test, recipe.loss, fabric)


def _facts(
    recipe: Recipe,
    data: _Data,
    normalization: FittedNormalization,
    architecture: Architecture,
    fabric: Fabric,
) -> dict[str, Any]:
    """What ``run.json`` keeps, beside the recipe's numbers."""
    from dataclasses import asdict
    from importlib.metadata import version

    import torch

    import dlzoo
    from dlzoo.zoo.train.trained_network import served_preprocessing

    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "model": recipe.model.name,
        "class_names": list(data.train.class_names),
        "is_multi_label": data.train.is_multi_label,
        "num_parameters": sum(p.numel() for p in architecture.network.parameters()),
        "input_shape": [data.train.num_channels, *data.train.geometry.crop_size],
        "preprocessing": asdict(served_preprocessing(geometry_of(recipe), normalization)),
        "data": {
            name: dataset.facts for name, dataset in parts.items() if dataset is not None
        },
        "num_processes": fabric.world_size,
        "num_threads": torch.get_num_threads(),
        "device": fabric.device.type,
        "tools": {
            "dlzoo": dlzoo.__version__,
            **{name: version(name) for name in ("torch", "numpy", "lightning-fabric")},
        },
    }


def _say_nothing(_text: str) -> None:
    return None


def _report_nothing(_report: object) -> None:
    return None
