"""How training is shown: one line per epoch on stdout, live progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from dlzoo.cli.console import print_lines

if TYPE_CHECKING:
    from dlzoo.zoo.train.loop.reports import EpochReport, StepReport
    from dlzoo.zoo.training import Run

#: The figure shown first, and its title.
_FIGURES = {"top1_percent": "top-1", "map_percent": "mAP"}


class TrainingDisplay:
    """Shows where a run is; live only where stderr is a terminal."""

    def __init__(self, progress: Progress | None, *, quiet: bool) -> None:
        self._progress = progress
        self._quiet = quiet
        self._has_header = False
        self._task = progress.add_task("start", total=None) if progress else None

    def show(self, text: str) -> None:
        """Show the name of the stage that runs."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=text, total=None, completed=0)

    def show_bytes(self, done: int, total: int) -> None:
        """Show how much is downloaded, or how many images are checked."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def report(self, report: StepReport | EpochReport) -> None:
        """Show a step, or print an epoch's line."""
        from dlzoo.zoo.train.loop.reports import StepReport

        if isinstance(report, StepReport):
            if self._progress is not None and self._task is not None:
                top1 = "" if report.top1_percent is None else f"{report.top1_percent:.1f} %  "
                text = (
                    f"epoch {report.epoch}/{report.num_epochs}  loss {report.loss:.4f}  "
                    f"{top1}{report.images_per_second:,.0f} images/s  "
                    f"{_clock(report.seconds_left)} left"
                )
                self._progress.update(
                    self._task,
                    description=text,
                    completed=report.batch,
                    total=report.num_batches,
                )
        elif not self._quiet:
            if not self._has_header:
                print(_header(report), flush=True)
                self._has_header = True
            print(_epoch_line(report), flush=True)


def _figure(row: Mapping[str, Any]) -> str:
    """The name of the figure that the rows of a run have."""
    names = [name for name in _FIGURES if row.get(f"validation_{name}") is not None]
    return names[0] if names else "top1_percent"


def _header(report: EpochReport) -> str:
    figure = _FIGURES[_figure(report.row)]
    return (
        f"  epoch   train loss  {figure:>8}   validation loss  {figure:>8}   images/s     time"
    )


def _epoch_line(report: EpochReport) -> str:
    row, figure = report.row, _figure(report.row)
    epoch = f"{row['epoch']}/{report.num_epochs}"
    has_validation = row.get("validation_loss") is not None
    loss = f"{row['validation_loss']:.4f}" if has_validation else "-"
    is_best = report.is_best and has_validation
    return (
        f"{epoch:>7}   {row['train_loss']:>10.4f}  {_percent(row, f'train_{figure}'):>8}   "
        f"{loss:>15}  {_percent(row, f'validation_{figure}'):>8}   "
        f"{row['images_per_second']:>8,.0f}   {_clock(row['seconds']):>6}{' *' if is_best else ''}"
    )


def _percent(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "-" if value is None else f"{value:.2f} %"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_run(run: Run) -> None:
    """Print the result of a run, and the command that exports it."""
    if run.test is not None:
        names = [name for name in _FIGURES if run.test.get(name) is not None]
        figures = "".join(f"{_FIGURES[name]} {run.test[name]:.2f} %, " for name in names)
        print_lines(
            [
                "",
                f"Test: {figures}loss {run.test['loss']:.4f} on {run.test['num_images']:,} images "
                f"(weights of epoch {run.best_epoch}).",
            ]
        )
    print_lines([f"Run: {run.folder}", f"Export it: dlzoo export {run.folder}"])


@contextmanager
def training_display(*, quiet: bool = False) -> Iterator[TrainingDisplay]:
    """Show a run while the block runs."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield TrainingDisplay(None, quiet=quiet)
        return
    columns = (BarColumn(bar_width=12), TextColumn("{task.description}"))
    # Rich would send what is printed to stderr, wherever stdout goes.
    is_same = sys.stdout.isatty()
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=is_same
    ) as progress:
        yield TrainingDisplay(progress, quiet=quiet)
