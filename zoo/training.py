"""Training: from a recipe and a data set to a run, which can be exported like any model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from dlzoo.errors import TrainingError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.normalization import FittedNormalization
from dlzoo.zoo.sources.architecture import Architecture, build_architecture
from dlzoo.zoo.state_dict import copy_state_dict
from dlzoo.zoo.train.loop.memory import is_out_of_memory
from dlzoo.zoo.train.loop.processes import make_fabric
from dlzoo.zoo.train.loop.reports import OnReport
from dlzoo.zoo.train.loop.tensorboard_log import with_tensorboard
from dlzoo.zoo.train.loop.trainer import Trainer
from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.recipes.resolution import geometry_of, own_preprocessing, resolve_recipe
from dlzoo.zoo.train.run.checkpoint import seed_random_streams
from dlzoo.zoo.train.run.result_files import (
    schedule_svg,
    write_curves,
    write_samples,
    write_test_result,
)
from dlzoo.zoo.train.run.run_data import (
    RunData,
    batches_of_pixels,
    load_run_data,
    make_pipeline,
    make_streams,
    steps_per_epoch,
)
from dlzoo.zoo.train.run.run_facts import run_facts
from dlzoo.zoo.train.run.run_folder import BEST, FACTS, LAST, RunFolder
from dlzoo.zoo.train.run.starting_weights import starting_weights
from dlzoo.zoo.train.run.trained_network import best_weights, save_normalization
from dlzoo.zoo.train.scores.prediction import predict

OnText = Callable[[str], None]

#: Images used by a layer-sequential initialization.
_INITIALIZATION_BATCH = 256


@dataclass(frozen=True)
class Run:
    """The result of a training run; ``test`` is None if there are no test images."""

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

    Under torchrun, every process calls this with the same arguments, and the first one writes. A
    resumed run ends with the same weights, bit by bit, as one that never stopped, on the same
    machine with the same number of processes. A run that cannot begin leaves no folder.

    Args:
        recipe: every number of the run; to resume a run, its own recipe.
        folder: folder of the run, see :mod:`dlzoo.zoo.train.run.run_folder`.
        resume: continue from the last checkpoint in the folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        on_report: called with a report after every epoch, and now and then within one.
        on_stage: called with the name of each stage before and after the epochs.
        on_note: called with notes for the user, such as images that were left out.
        on_bytes: called with the number of bytes downloaded so far, and of all.

    Raises:
        DlzooError: something is wrong with the recipe, the data or the folder.
        TrainingError: the loss is NaN or Inf, or memory ran out.
    """
    stage, note = on_stage or _say_nothing, on_note or _say_nothing
    with ExitStack() as stack:
        try:
            fabric = make_fabric(device=device, precision=recipe.loop.precision)
            if not fabric.is_global_zero:
                stage = note = _say_nothing
            run_folder = _opened(Path(folder), fabric, resume, stack, note)
            training = _Training(resolve_recipe(recipe), run_folder, fabric, resume, stack)
            return training.run(on_report or _report_nothing, stage, note, on_bytes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                "Memory is too small. Use smaller batches (`loop.batch_size`, or for validation "
                "`loop.evaluation_batch_size`), smaller images or a smaller network."
            ) from None


def _opened(
    path: Path, fabric: Fabric, resume: bool, stack: ExitStack, note: OnText
) -> RunFolder:
    """The folder to continue in, locked; or a new one, to be made once the run can begin."""
    if not resume:
        folder = RunFolder(path)
        if fabric.is_global_zero:
            folder.require_new()
        return folder
    folder = RunFolder.open(path)
    if fabric.is_global_zero:
        stack.enter_context(folder.locked())
    if (path / FACTS).is_file():
        facts = folder.facts
        # With another number of threads, sums would have other bits.
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(facts["num_threads"])
        if facts["num_processes"] != fabric.world_size:
            note(
                f"{path} was trained by {facts['num_processes']} processes and continues with "
                f"{fabric.world_size}: the weights will not be the same bit by bit."
            )
    return folder


@dataclass(frozen=True)
class _Training:
    """One call of :func:`train`."""

    recipe: Recipe
    folder: RunFolder
    fabric: Fabric
    is_resumed: bool
    stack: ExitStack

    def run(
        self,
        on_report: OnReport,
        stage: OnText,
        note: OnText,
        on_bytes: Callable[[int, int], None] | None,
    ) -> Run:
        recipe, folder, fabric = self.recipe, self.folder, self.fabric
        data = self._load_data(stage, note, on_bytes)
        stage("measure the images")
        normalization = recipe.normalization.fit(
            batches_of_pixels(data.train), preprocessing=own_preprocessing(recipe.model.name)
        )
        for text in normalization.notes:
            note(text)
        stage("build the network")
        seed_random_streams(recipe.loop.seed + fabric.global_rank)
        architecture = self._initialized(data.train, normalization, note, on_bytes)
        pipeline = make_pipeline(recipe, data.train)
        streams = self.stack.enter_context(
            make_streams(recipe, data, normalization, pipeline, fabric)
        )
        trainer = Trainer(
            recipe,
            architecture.network,
            batches=streams.train,
            validation=streams.validation,
            folder=folder,
            fabric=fabric,
        )
        if self.is_resumed:
            trainer.resume()
        if fabric.is_global_zero:
            self._write_start(data, normalization, architecture)
            on_report = self.stack.enter_context(
                with_tensorboard(
                    folder.path, on_report, first_epoch=trainer.progress.epoch + 1
                )
            )
        rows = trainer.run(on_report)
        stage("test")
        weights = best_weights(folder.path / BEST)
        copy_state_dict(architecture.network, weights, str(folder.path / BEST))
        best_epoch = trainer.progress.best_epoch or len(rows)
        result = None
        if streams.test is not None:
            prediction = predict(architecture.network, streams.test, recipe.loss, fabric)
            if fabric.is_global_zero:
                names = data.train.class_names
                result = write_test_result(folder, prediction, names, best_epoch)
        if fabric.is_global_zero:
            write_curves(folder.path, rows)
        return Run(folder.path, rows, best_epoch, result)

    def _load_data(
        self, stage: OnText, note: OnText, on_bytes: Callable[[int, int], None] | None
    ) -> RunData:
        if self.recipe.loop.deterministic and self.fabric.device.type == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
        stage("read the images")
        # One process downloads, and then the others find the files.
        with self.fabric.rank_zero_first():
            data = load_run_data(self.recipe, Geometry.of(geometry_of(self.recipe)), on_bytes)
        for skipped in data.train.skipped:
            note(f"left out {skipped.path}: {skipped.reason}")
        return data

    def _initialized(
        self,
        dataset: Dataset,
        normalization: FittedNormalization,
        note: OnText,
        on_bytes: Callable[[int, int], None] | None,
    ) -> Architecture:
        """The network before training: with new weights, or with those trained before."""
        recipe, model = self.recipe, self.recipe.model
        height, width = dataset.geometry.crop_size
        architecture = build_architecture(
            model.name,
            num_classes=len(dataset.class_names),
            input_shape=(dataset.num_channels, height, width),
            arguments=model.arguments,
            seed=recipe.loop.seed,
        )
        if self.is_resumed and (self.folder.path / LAST).is_file():
            return architecture  # its weights are in the checkpoint
        count = min(_INITIALIZATION_BATCH, len(dataset))
        first = normalization(dataset.read(range(count)).float() / 255)
        recipe.initialization.apply(architecture.network, first, recipe.loop.seed)
        if model.weights != "none":
            weights, subject = starting_weights(model.name, model.weights, on_bytes)
            drawn = recipe.transfer.load(architecture.network, weights, subject)
            if drawn:
                note(f"{subject}: {', '.join(drawn)} get new random values.")
        return architecture

    def _write_start(
        self, data: RunData, normalization: FittedNormalization, architecture: Architecture
    ) -> None:
        """Write the start of a new run, or what a process killed at its start did not write."""
        folder, recipe = self.folder, self.recipe
        if not self.is_resumed:
            self.stack.enter_context(folder.locked())
            folder.create(recipe)
        elif (folder.path / FACTS).is_file():
            return
        save_normalization(folder.path, normalization)
        pipeline = make_pipeline(recipe, data.train)
        write_samples(folder.path, data.train, pipeline, seed=recipe.loop.seed)
        # Written last: if it exists, so do the others.
        folder.write_json(
            FACTS, run_facts(recipe, data, normalization, architecture.network, self.fabric)
        )


def schedule_plot(recipe: Recipe) -> str:
    """The learning rate over a run, as SVG.

    Raises:
        DataError: the data set, whose size determines the steps per epoch, cannot be read.
    """
    data = load_run_data(recipe, Geometry.of(geometry_of(recipe)), None)
    return schedule_svg(recipe, steps_per_epoch(recipe, data.train))


def _say_nothing(_text: str) -> None:
    return None


def _report_nothing(_report: object) -> None:
    return None
