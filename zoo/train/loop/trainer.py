"""The training loop: steps, epochs, validation, best weights, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dlzoo.errors import TrainingError
from dlzoo.zoo.data.batches import Batch, BatchStream
from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.train.loop.first_bad_layer import first_bad_weight
from dlzoo.zoo.train.loop.optimizer_step import OptimizerStep
from dlzoo.zoo.train.loop.processes import first_buffers
from dlzoo.zoo.train.loop.reports import EpochReport, OnReport, StepReport
from dlzoo.zoo.train.loop.synchronized_norm import synchronize_batch_norm
from dlzoo.zoo.train.losses.loss import learns_embeddings
from dlzoo.zoo.train.optimize.optimizers import set_learning_rate
from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.run.checkpoint import write_tensors
from dlzoo.zoo.train.run.history import History
from dlzoo.zoo.train.run.run_folder import BEST, LAST, RunFolder
from dlzoo.zoo.train.run.run_state import Progress, RunState, origin_of
from dlzoo.zoo.train.scores.prediction import Scores, predict

#: Seconds between two reports within an epoch.
_REPORT_SECONDS = 0.5


class Trainer:
    """Trains one network by one recipe into one folder.

    Args:
        recipe: every number of the run.
        network: a network in float32; changed in place.
        batches: batches of the training images.
        validation: batches to choose the best weights by; None to keep the last weights.
        folder: folder of the run.
        fabric: the processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        *,
        batches: BatchStream,
        validation: BatchStream | None,
        folder: RunFolder,
        fabric: Fabric,
    ) -> None:
        self._recipe = recipe
        self._plain = network
        self._batches = batches
        self._validation = validation
        self._folder = folder
        self._fabric = fabric
        self._on_report: OnReport = lambda _report: None
        loop = recipe.loop
        if fabric.world_size > 1 and loop.synchronize_batch_norm:
            synchronize_batch_norm(network)
        if loop.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = recipe.transfer.parameter_groups(network)
        self._optimizer = recipe.optimizer.build(groups)
        self._network, self._optimizer = fabric.setup(network, self._optimizer)
        self._average = recipe.weight_average.start(network) if recipe.weight_average else None
        self._schedule = recipe.schedule.start(loop.epochs, batches.num_batches)
        self.progress = Progress()
        origin = origin_of(recipe, len(batches.dataset))
        self._state = RunState(fabric, network, self._optimizer, self.progress, origin)
        self._step = OptimizerStep(
            fabric,
            self._network,
            self._optimizer,
            loss=partial(loss_of_network, recipe),
            penalties=recipe.penalty,
            clip_norm=loop.clip_norm,
            is_channels_last=loop.channels_last,
        )
        self._history = History(folder.path)
        self._saved_at = time.monotonic()
        self._gives_scores = not (
            batches.dataset.is_multi_label or learns_embeddings(recipe.loss)
        )

    def resume(self) -> None:
        """Continue from the last checkpoint, or start if there is none.

        Raises:
            CheckpointError: the checkpoint is damaged, or of another run.
        """
        path = self._folder.path / LAST
        if not path.is_file():
            return
        self._state.load(path, self._load_rest)
        self._history = History(self._folder.path, num_rows=self.progress.num_rows)

    def _load_rest(
        self, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]
    ) -> None:
        if self._average is not None:
            self._average.load(tensors["average"])
        self._schedule.load_state(facts["schedule"])

    def run(self, on_report: OnReport) -> list[dict[str, Any]]:
        """Train to the end and return the rows of the history.

        Args:
            on_report: called with a report after every epoch, and now and then within one.

        Raises:
            TrainingError: the loss is NaN or Inf, or memory ran out.
            StorageError: the disk is full; the last checkpoint stays.
        """
        self._on_report = on_report
        for epoch in range(self.progress.epoch, self._recipe.loop.epochs):
            if self._is_out_of_patience():
                break
            self._run_epoch(epoch)
        return self._history.rows

    # -- one epoch -------------------------------------------------------------------------------

    def _run_epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        waited = self._batches.seconds_waiting
        first_batch, first_image = self.progress.batch, self.progress.num_images
        self._network.train()
        self._recipe.transfer.after_train_mode(self._plain)
        reported = start
        parts: list[Batch] = []
        for part in self._batches.epoch(epoch, start=first_batch):
            parts.append(part)
            if not part.is_last_part:
                continue
            self._take_step(epoch, parts)
            parts = []
            self._save_when_due(epoch)
            now = time.perf_counter()
            if now - reported > _REPORT_SECONDS and self._fabric.is_global_zero:
                reported = now
                self._report_step(now - start, first_batch, first_image)
        # Neither a checkpoint nor the best weights ever contain NaN.
        self._require_finite_weights(epoch)
        seconds = time.perf_counter() - start
        waiting = self._batches.seconds_waiting - waited
        self._finish_epoch(epoch, seconds, waiting, self.progress.num_images - first_image)

    def _take_step(self, epoch: int, parts: Sequence[Batch]) -> None:
        progress = self.progress
        factor = self._schedule.factor(progress.step)
        set_learning_rate(self._optimizer, self._recipe.optimizer.lr * factor)
        result = self._step.run(parts, where=self._where(epoch, 1))
        if self._average is not None:
            self._average.update(self._plain)
        sums = torch.tensor(
            [result.loss_sum, result.num_correct, result.num_images], dtype=torch.float64
        )
        if self._fabric.world_size > 1:
            sums = self._fabric.all_reduce(sums, reduce_op="sum").cpu()  # type: ignore[union-attr]
        loss_sum, num_correct, counted = sums.tolist()
        progress.loss_sum += loss_sum
        progress.num_correct += int(num_correct)
        progress.num_images += int(counted)
        progress.norm_sum += result.gradient_norm
        progress.batch += 1
        progress.step += 1

    def _finish_epoch(self, epoch: int, seconds: float, waiting: float, counted: int) -> None:
        progress = self.progress
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": progress.step,
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "train_loss": progress.loss_sum / max(1, progress.num_images),
        }
        if self._gives_scores:
            share = progress.num_correct / max(1, progress.num_images)
            row["train_top1_percent"] = 100 * share
        if self._recipe.loop.clip_norm is not None:
            row["gradient_norm"] = progress.norm_sum / max(1, progress.batch)
        scores = self._validate()
        if scores is not None:
            row |= {
                f"validation_{name}": value
                for name, value in scores.figures.items()
                if name != "num_images"
            }
            self._schedule.end_epoch(scores.loss)
        is_best = scores is None or self._is_better(scores.loss)
        if is_best:
            progress.best_epoch = epoch + 1
            progress.best_loss = scores.loss if scores and math.isfinite(scores.loss) else None
        timing = {
            "images_per_second": counted / seconds,
            "waiting_percent": 100 * waiting / seconds,
            "seconds": seconds,
        }
        progress.num_rows = len(self._history.rows) + 1
        progress.start_epoch(epoch + 1)
        if self._fabric.is_global_zero:
            # In this order, so that a checkpoint never counts a row or best weights not yet written.
            self._history.add(row | timing)
            if is_best:
                write_tensors(
                    self._folder.path / BEST, self._weights_to_use(), {"epoch": epoch + 1}
                )
        self._save()
        if self._fabric.is_global_zero:
            self._on_report(EpochReport(row | timing, self._recipe.loop.epochs, is_best))

    def _weights_to_use(self) -> dict[str, Tensor]:
        return (self._average or self._plain).state_dict()

    def _validate(self) -> Scores | None:
        """Figures on the validation images, equal in every process."""
        if self._validation is None:
            return None
        weights = self._average.applied_to(self._plain) if self._average else nullcontext()
        with weights, first_buffers(self._fabric, self._plain):
            return predict(
                self._plain, self._validation, self._recipe.loss, self._fabric
            ).scores

    def _is_better(self, loss: float) -> bool:
        progress = self.progress
        if progress.best_epoch is None or not math.isfinite(loss):
            return progress.best_epoch is None
        return progress.best_loss is None or loss < progress.best_loss

    def _is_out_of_patience(self) -> bool:
        patience = self._recipe.loop.patience
        if patience is None or self.progress.best_epoch is None:
            return False
        return self.progress.epoch - self.progress.best_epoch >= patience

    # -- checkpoints and reports -----------------------------------------------------------------

    def _where(self, epoch: int, ahead: int = 0) -> str:
        """Name of the last step in messages, or of the one ``ahead`` steps later."""
        progress = self.progress
        return (
            f"Epoch {epoch + 1}, step {progress.step + ahead} (batch {progress.batch + ahead} of "
            f"{self._batches.num_batches})"
        )

    def _require_finite_weights(self, epoch: int) -> None:
        weight = first_bad_weight(self._plain)
        if weight is not None:
            raise TrainingError(
                f"{self._where(epoch)}: the weights {weight} are NaN or Inf after this step, "
                "expected finite numbers. Lower `optimizer.lr`, add a warm-up, or set "
                "`loop.clip_norm`."
            )

    def _save_when_due(self, epoch: int) -> None:
        is_due = time.monotonic() - self._saved_at > 60 * self._recipe.loop.checkpoint_minutes
        if self._fabric.world_size > 1:
            # Clocks differ, so the first process decides.
            is_due = self._fabric.broadcast(is_due)
        if is_due:
            self._require_finite_weights(epoch)
            self._save()

    def _save(self) -> None:
        average = {"average": self._average.tensors()} if self._average is not None else {}
        self._state.save(
            self._folder.path / LAST,
            extra_tensors=average,
            extra_facts={"schedule": self._schedule.state()},
        )
        self._saved_at = time.monotonic()

    def _report_step(self, seconds: float, first_batch: int, first_image: int) -> None:
        progress, loop = self.progress, self._recipe.loop
        num_batches = self._batches.num_batches
        done = progress.batch - first_batch
        remaining = (loop.epochs - progress.epoch) * num_batches - progress.batch
        self._on_report(
            StepReport(
                epoch=progress.epoch + 1,
                num_epochs=loop.epochs,
                batch=progress.batch,
                num_batches=num_batches,
                loss=progress.loss_sum / progress.num_images,
                top1_percent=100 * progress.num_correct / progress.num_images
                if self._gives_scores
                else None,
                images_per_second=(progress.num_images - first_image) / seconds,
                seconds_left=seconds / done * remaining,
            )
        )


def loss_of_network(
    recipe: Recipe, outputs: Tensor | LogitsWithAuxiliary, targets: Tensor
) -> Tensor:
    """The loss of the logits plus the weighted loss of each auxiliary head.

    **Source**: Szegedy et al. 2014, "Going deeper with convolutions", section 5.
    """
    if not isinstance(outputs, LogitsWithAuxiliary):
        return recipe.loss(outputs, targets)
    loss = recipe.loss(outputs.logits, targets)
    for auxiliary in outputs.auxiliary:
        loss = loss + recipe.loop.auxiliary_weight * recipe.loss(auxiliary, targets)
    return loss
