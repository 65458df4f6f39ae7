"""The progress of a long job: stages, notes and downloads, reported to one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Called by a long job; pass any object with these three methods."""

    def stage(self, text: str) -> None:
        """Called with the name of each stage when it begins."""

    def note(self, text: str) -> None:
        """Called with each fact that the user should know."""

    def download(self, done_bytes: int, total_bytes: int) -> None:
        """Called while a file is fetched, with the bytes that have arrived and their total."""


@dataclass(frozen=True)
class SilentProgress:
    """Ignores everything: the default of every function that takes ``progress``."""

    def stage(self, text: str) -> None:
        """Ignore the stage."""

    def note(self, text: str) -> None:
        """Ignore the note."""

    def download(self, done_bytes: int, total_bytes: int) -> None:
        """Ignore the download."""


SILENT = SilentProgress()
