"""Learning-rate schedules: a factor of the optimizer's learning rate for every step.

All except ``plateau`` are functions of time alone, so they have no state to save. Time t is in
epochs since the end of the warm-up: step / steps per epoch - w.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dlzoo.zoo.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[float, Field(gt=0)]


class _Schedule(Settings):
    warmup_epochs: float = Field(default=0.0, ge=0)
    """w: epochs in which the factor grows linearly to the schedule's first value.

    Source: Goyal et al. 2017, "Accurate, large minibatch SGD", section 2.2.
    """
    warmup_start: Share = 0.0
    """Factor at the first step of a warm-up."""

    def factor(self, epoch: float, num_epochs: float) -> float:
        """The factor of the learning rate.

        Args:
            epoch: time since the start of the run, with a fraction within an epoch.
            num_epochs: length of the whole run.
        """
        t = epoch - self.warmup_epochs
        if t >= 0:
            return self._factor(t, num_epochs - self.warmup_epochs)
        # Ends at the schedule's own first value, without a jump.
        top = self._factor(0.0, num_epochs - self.warmup_epochs)
        return self.warmup_start + (top - self.warmup_start) * epoch / self.warmup_epochs

    def _factor(self, t: float, duration: float) -> float:
        """The factor t epochs after the warm-up; ``duration`` is the epochs after it."""
        raise NotImplementedError

    def start(self, num_epochs: int, steps_per_epoch: int) -> ScheduleProgress:
        """The progress of this schedule in one run."""
        return ScheduleProgress(self.factor, num_epochs, steps_per_epoch)


class Constant(_Schedule):
    """The same learning rate throughout: ``1``."""

    name: Literal["constant"] = "constant"

    def _factor(self, t: float, duration: float) -> float:
        return 1.0


class FixedDecay(_Schedule):
    """Decay with the inverse of time: ``1 / (1 + decay t)``.

    Source:
        Robbins & Monro 1951, "A stochastic approximation method", section 4 (steps like 1/t);
        Bottou 2012, "Stochastic gradient descent tricks", section 5.2.
    """

    name: Literal["fixed-decay"] = "fixed-decay"
    decay: float = Field(default=0.1, ge=0)
    """Decay per epoch."""

    def _factor(self, t: float, duration: float) -> float:
        return 1.0 / (1.0 + self.decay * t)


class Step(_Schedule):
    """A drop every ``step_epochs`` epochs: ``gamma^floor(t / step_epochs)``."""

    name: Literal["step"] = "step"
    step_epochs: Epochs = 30.0
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor of each drop."""

    def _factor(self, t: float, duration: float) -> float:
        return float(self.gamma ** math.floor(t / self.step_epochs))


class MultiStep(_Schedule):
    """A drop at each milestone: ``gamma^(milestones passed)``.

    Milestones are epochs since the start of the run, warm-up included.

    Source:
        He et al. 2016, "Deep residual learning for image recognition", section 4.2; Goyal et
        al. 2017, "Accurate, large minibatch SGD", section 5.1 (30, 60, 80, after 5 of warm-up).
    """

    name: Literal["multi-step"] = "multi-step"
    milestones: Annotated[tuple[Epochs, ...], Field(min_length=1)]
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Factor of each drop."""

    @model_validator(mode="after")
    def _check_order(self) -> MultiStep:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must be in increasing order")
        return self

    def _factor(self, t: float, duration: float) -> float:
        # During a warm-up t is 0, so milestones within it count as passed from the start.
        num_passed = sum(m <= t + self.warmup_epochs for m in self.milestones)
        return float(self.gamma**num_passed)


class Exponential(_Schedule):
    """A constant ratio between epochs: ``gamma^t``."""

    name: Literal["exponential"] = "exponential"
    gamma: float = Field(default=0.95, gt=0, le=1)
    """Factor per epoch."""

    def _factor(self, t: float, duration: float) -> float:
        return float(self.gamma**t)


class Cosine(_Schedule):
    """Half a cosine from 1 down to ``min_factor`` at the end of the run.

    ``m + (1 - m) (1 + cos(pi t / T)) / 2``, T the epochs after the warm-up

    Source:
        Loshchilov & Hutter 2017, "SGDR", equation 5, without restarts.
    """

    name: Literal["cosine"] = "cosine"
    min_factor: Share = 0.0

    def _factor(self, t: float, duration: float) -> float:
        # A run may end before its warm-up does.
        share = min(1.0, t / duration) if duration > 0 else 0.0
        return _half_cosine(share, self.min_factor)


class WarmRestarts(_Schedule):
    """Repeated half cosines, each period longer than the last by a constant factor.

    ``m + (1 - m) (1 + cos(pi t_i / T_i)) / 2``, t_i the epochs since the last restart and
    ``T_i = period_epochs * period_factor^i``

    Source:
        Loshchilov & Hutter 2017, "SGDR", equation 5.
    """

    name: Literal["warm-restarts"] = "warm-restarts"
    period_epochs: Epochs = 10.0
    period_factor: float = Field(default=1.0, ge=1)
    min_factor: Share = 0.0

    def _factor(self, t: float, duration: float) -> float:
        period = self.period_epochs
        if self.period_factor == 1:
            return _half_cosine(t % period / period, self.min_factor)
        while t >= period:
            t -= period
            period *= self.period_factor
        return _half_cosine(t / period, self.min_factor)


class Plateau(_Schedule):
    """A drop whenever the validation loss has not fallen for some epochs.

    An epoch is better if its loss is below ``best (1 - threshold)``. After more than
    ``patience`` epochs in a row that are not better, the factor is multiplied by ``gamma``, and
    the next ``cooldown_epochs`` epochs do not count.

    Source:
        Bengio 2012, "Practical recommendations for gradient-based training of deep
        architectures", section 3.1.1 (adaptive decreases); the rules are PyTorch's
        ``ReduceLROnPlateau``.
    """

    name: Literal["plateau"] = "plateau"
    gamma: float = Field(default=0.1, gt=0, lt=1)
    patience: int = Field(default=10, ge=0)
    """Epochs without improvement before a drop."""
    threshold: float = Field(default=1e-4, ge=0, lt=1)
    """Share of the best loss by which a better loss must be lower."""
    cooldown_epochs: int = Field(default=0, ge=0)
    min_factor: Share = 0.0

    def _factor(self, t: float, duration: float) -> float:
        return 1.0

    def start(self, num_epochs: int, steps_per_epoch: int) -> PlateauProgress:
        """The progress of this schedule in one run, updated with every epoch's loss."""
        return PlateauProgress(self, num_epochs, steps_per_epoch)


Schedule = Annotated[
    Constant | FixedDecay | Step | MultiStep | Exponential | Cosine | WarmRestarts | Plateau,
    Field(discriminator="name"),
]


def _half_cosine(share: float, least: float) -> float:
    return least + (1 - least) * (1 + math.cos(math.pi * share)) / 2


def plotted_factors(
    schedule: Schedule, num_epochs: int, steps_per_epoch: int, max_points: int = 2000
) -> list[tuple[float, float]]:
    """Epoch and factor at evenly spaced steps of a run, for a plot.

    For ``plateau``, which depends on future losses, only the warm-up is known.
    """
    progress = schedule.start(num_epochs, steps_per_epoch)
    num_steps = num_epochs * steps_per_epoch
    stride = max(1, -(-num_steps // max_points))
    steps = [*range(0, num_steps, stride)]
    if steps[-1] != num_steps - 1:
        steps.append(num_steps - 1)
    return [(step / steps_per_epoch, progress.factor(step)) for step in steps]


class ScheduleProgress:
    """The progress of a schedule in one run.

    Args:
        factor: function of the epoch and the number of epochs.
        num_epochs: length of the run.
        steps_per_epoch: steps of the optimizer per epoch.
    """

    def __init__(
        self, factor: Callable[[float, float], float], num_epochs: int, steps_per_epoch: int
    ) -> None:
        self._factor = factor
        self._num_epochs = num_epochs
        self._steps_per_epoch = steps_per_epoch

    def factor(self, step: int) -> float:
        """The factor of the learning rate at a step, counted from 0."""
        return self._factor(step / self._steps_per_epoch, self._num_epochs)

    def end_epoch(self, loss: float) -> None:
        """Record the validation loss of an epoch, which functions of time ignore."""

    def state(self) -> dict[str, Any]:
        """The state to save in a checkpoint, for JSON."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""


class PlateauProgress(ScheduleProgress):
    """The progress of a plateau schedule: the best loss so far, and the epochs since."""

    def __init__(self, schedule: Plateau, num_epochs: int, steps_per_epoch: int) -> None:
        super().__init__(schedule.factor, num_epochs, steps_per_epoch)
        self._plateau = schedule
        self._level = 1.0
        self._best: float | None = None
        self._num_bad = 0
        self._cooldown_left = 0

    def factor(self, step: int) -> float:
        """The factor of the learning rate at a step, from the losses so far."""
        return super().factor(step) * self._level

    def end_epoch(self, loss: float) -> None:
        """Update the factor with an epoch's loss; NaN is never better."""
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
        # Also for a negative loss, the improvement is a share of its magnitude.
        return loss < self._best - self._plateau.threshold * abs(self._best)

    def state(self) -> dict[str, Any]:
        """The state to save in a checkpoint, for JSON."""
        return {
            "level": self._level,
            "best": self._best,
            "num_bad": self._num_bad,
            "cooldown_left": self._cooldown_left,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state` returned."""
        self._level = float(state["level"])
        self._best = None if state["best"] is None else float(state["best"])
        self._num_bad = int(state["num_bad"])
        self._cooldown_left = int(state["cooldown_left"])
