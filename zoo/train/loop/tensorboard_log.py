"""Logging of a run's rows to TensorBoard, if it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from dlzoo.zoo.train.loop.reports import EpochReport, OnReport, StepReport

#: Folder within a run for ``tensorboard --logdir``.
FOLDER = "tensorboard"


@contextmanager
def with_tensorboard(
    folder: Path, on_report: OnReport, *, first_epoch: int
) -> Iterator[OnReport]:
    """Also report to TensorBoard: every number of an epoch's row, under its name.

    Does nothing if the package ``tensorboard`` is not installed.

    Args:
        folder: folder of the run.
        on_report: callback that gets every report as before.
        first_epoch: counted from 1; what an interrupted run logged from there on is hidden.
    """
    if find_spec("tensorboard") is None:
        yield on_report
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / FOLDER, purge_step=first_epoch) as writer:

        def report(progress: StepReport | EpochReport) -> None:
            on_report(progress)
            if isinstance(progress, EpochReport):
                epoch = progress.row["epoch"]
                for name, value in progress.row.items():
                    if name != "epoch" and value is not None:
                        writer.add_scalar(name, value, epoch)

        yield report
