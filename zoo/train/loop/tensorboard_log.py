"""The rows of a run for TensorBoard, where that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from dlzoo.zoo.train.loop.reports import EpochReport, OnReport, StepReport

#: The folder of a run that ``tensorboard --logdir`` reads.
FOLDER = "tensorboard"


@contextmanager
def with_tensorboard(
    folder: Path, on_report: OnReport, *, first_epoch: int
) -> Iterator[OnReport]:
    """Report to TensorBoard, too: every number of an epoch's row, under its name.

    Without the package ``tensorboard`` nothing changes.

    Args:
        folder: of the run.
        on_report: is told of everything as before.
        first_epoch: from 1; what an interrupted run wrote of it and later is hidden.
    """
    if find_spec("tensorboard") is None:
        yield on_report
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / FOLDER, purge_step=first_epoch) as writer:

        def report(what: StepReport | EpochReport) -> None:
            on_report(what)
            if isinstance(what, EpochReport):
                epoch = what.row["epoch"]
                for name, value in what.row.items():
                    if name != "epoch" and value is not None:
                        writer.add_scalar(name, value, epoch)

        yield report
