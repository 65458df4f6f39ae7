"""Progress reports of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StepReport:
    """Progress within an epoch."""

    epoch: int
    num_epochs: int
    batch: int
    num_batches: int
    loss: float
    #: None if images have several labels.
    top1_percent: float | None
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class EpochReport:
    """A row of the history, and whether its weights are the best so far."""

    row: dict[str, Any]
    num_epochs: int
    is_best: bool


OnReport = Callable[[StepReport | EpochReport], None]
