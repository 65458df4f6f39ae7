"""Measure how long each stage of a long job takes, and report when one begins."""

from __future__ import annotations

import time

from dlzoo.runtime.proof.progress import SILENT, Progress


class StageClock:
    """Call it with a stage's name when the stage begins; a name may come again.

    >>> clock = StageClock()
    >>> clock("export")
    >>> clock("verify", "optimization all, batch 2")
    >>> list(clock.stop())
    ['export', 'verify']
    """

    def __init__(self, progress: Progress = SILENT) -> None:
        self._progress = progress
        self._seconds: dict[str, float] = {}
        self._current: str | None = None
        self._start = 0.0

    def __call__(self, stage: str, detail: str = "") -> None:
        """End the stage before and begin this one."""
        self._end_current()
        self._current = stage
        self._seconds.setdefault(stage, 0.0)
        self._start = time.perf_counter()
        self._progress.stage(f"{stage}: {detail}" if detail else stage)

    def stop(self) -> dict[str, float]:
        """End the current stage; seconds by stage, in the order of their first begin."""
        self._end_current()
        return {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}

    def _end_current(self) -> None:
        if self._current is not None:
            self._seconds[self._current] += time.perf_counter() - self._start
            self._current = None
