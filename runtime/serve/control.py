"""Control of a whole server, of one process or several: its models and their counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dlzoo.runtime.serve.models.statistics import Statistics

if TYPE_CHECKING:
    from dlzoo.runtime.serve.models.repository import IndexEntry


@dataclass(frozen=True)
class ModelCounts:
    """The counts of one version of a model in one process."""

    name: str
    version: str
    num_waiting: int
    statistics: Statistics


@dataclass(frozen=True)
class ProcessCounts:
    """The counts of one process; ``worker`` is its number, empty if there is only one."""

    worker: str
    pid: int
    is_ready: bool
    num_unauthenticated: int
    models: list[ModelCounts]


class Control(Protocol):
    """Calls every process of a server."""

    async def load(self, name: str) -> None:
        """Load a model, or load it again.

        Raises:
            RefusalError: the model is unknown or cannot be served.
        """

    async def unload(self, name: str) -> None:
        """Stop accepting requests for a model.

        Raises:
            RefusalError: the model is unknown.
        """

    async def index(self) -> list[IndexEntry]:
        """List every version that is in the folders or loaded."""

    async def counts(self) -> list[ProcessCounts]:
        """Return the counts of each process."""


def statistics_json(
    counts: Sequence[ProcessCounts], name: str = "", version: str = ""
) -> list[dict[str, Any]]:
    """Build ``model_stats`` of the statistics extension, summed over all processes.

    Args:
        counts: the counts of each process.
        name: the only model to include; empty for all.
        version: the only version to include; empty for all.
    """
    parts: dict[tuple[str, str], list[Statistics]] = {}
    for process in counts:
        for model in process.models:
            if name in ("", model.name) and version in ("", model.version):
                parts.setdefault((model.name, model.version), []).append(model.statistics)
    return [Statistics.joined(found).to_json(*key) for key, found in parts.items()]
