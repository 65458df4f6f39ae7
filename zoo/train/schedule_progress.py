"""A learning-rate schedule in the course of one run, and what of it a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlzoo.zoo.train.schedules import Plateau


class ScheduleProgress:
    """A schedule in one run.

    Args:
        factor: of an epoch and of the number of epochs.
        num_epochs: of the run.
        steps_per_epoch: of the optimizer.
    """

    def __init__(
        self, factor: Callable[[float, float], float], num_epochs: int, steps_per_epoch: int
    ) -> None:
        self._factor = factor
        self._num_epochs = num_epochs
        self._steps_per_epoch = steps_per_epoch

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step; the run's first is 0."""
        return self._factor(step / self._steps_per_epoch, self._num_epochs)

    def end_epoch(self, loss: float) -> None:
        """Take note of the validation loss: a function of the time has no use for it."""

    def state(self) -> dict[str, Any]:
        """What a run that goes on needs, as JSON can hold it."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""


class PlateauProgress(ScheduleProgress):
    """A plateau schedule in one run: the best loss so far, and how long ago that was."""

    def __init__(self, schedule: Plateau, num_epochs: int, steps_per_epoch: int) -> None:
        super().__init__(schedule.factor, num_epochs, steps_per_epoch)
        self._plateau = schedule
        self._level = 1.0
        self._best: float | None = None
        self._num_bad = 0
        self._cooldown_left = 0

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step, as far as losses are known."""
        return super().factor(step) * self._level

    def end_epoch(self, loss: float) -> None:
        """Judge an epoch; NaN is never better."""
        plateau = self._plateau
        if self._is_better(loss):
            self._best = loss
            self._num_bad = 0
        else:
            self._num_bad += 1
        if self._cooldown_left:
            self._cooldown_left -= 1
            self._num_bad = 0
        if self._num_bad > plateau.patience:
            self._level = max(self._level * plateau.gamma, plateau.min_factor)
            self._cooldown_left = plateau.cooldown_epochs
            self._num_bad = 0

    def _is_better(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return False
        if self._best is None:
            return True
        # Of a negative loss, too, the improvement is a share of its size.
        return loss < self._best - self._plateau.threshold * abs(self._best)

    def state(self) -> dict[str, Any]:
        """What a run that goes on needs, as JSON can hold it."""
        return {
            "level": self._level,
            "best": self._best,
            "num_bad": self._num_bad,
            "cooldown_left": self._cooldown_left,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._level = float(state["level"])
        self._best = None if state["best"] is None else float(state["best"])
        self._num_bad = int(state["num_bad"])
        self._cooldown_left = int(state["cooldown_left"])
