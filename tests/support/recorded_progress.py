"""A progress that keeps what it was called with."""

from dataclasses import dataclass, field


@dataclass
class RecordedProgress:
    """Every stage, note and download, in order."""

    stages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    downloads: list[tuple[int, int]] = field(default_factory=list)

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def download(self, done_bytes: int, total_bytes: int) -> None:
        self.downloads.append((done_bytes, total_bytes))
