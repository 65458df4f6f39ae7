"""What concerns a whole server, be it one process or several: its models, and what they counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dlzoo.runtime.serve.models.statistics import Statistics

if TYPE_CHECKING:
    from dlzoo.runtime.serve.models.repository import IndexEntry


@dataclass(frozen=True)
class ModelCounts:
    """What a process counted of one version of a model."""

    name: str
    version: str
    num_waiting: int
    statistics: Statistics


@dataclass(frozen=True)
class ProcessCounts:
    """What a process counted; ``worker`` is its number where there are several, else empty."""

    worker: str
    pid: int
    is_ready: bool
    num_unauthenticated: int
    models: list[ModelCounts]


class Control(Protocol):
    """Asks every process of a server."""

    async def load(self, name: str) -> None:
        """Load a model, or load it again. Raises RefusalError."""

    async def unload(self, name: str) -> None:
        """Take no more requests for a model. Raises RefusalError."""

    async def index(self) -> list[IndexEntry]:
        """Every version that lies in the folders or is loaded."""

    async def counts(self) -> list[ProcessCounts]:
        """What each process counted."""


def statistics_json(
    counts: Sequence[ProcessCounts], name: str = "", version: str = ""
) -> list[dict[str, Any]]:
    """``model_stats`` of the statistics extension, all processes together.

    Args:
        counts: what each process counted.
        name: of one model alone, if given.
        version: of one version alone, if given.
    """
    parts: dict[tuple[str, str], list[Statistics]] = {}
    for process in counts:
        for model in process.models:
            if name in ("", model.name) and version in ("", model.version):
                parts.setdefault((model.name, model.version), []).append(model.statistics)
    return [Statistics.joined(found).to_json(*key) for key, found in parts.items()]
