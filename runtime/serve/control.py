"""What concerns a whole server, be it one process or several: its models, and what they counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dlzoo.runtime.serve.statistics import Statistics

if TYPE_CHECKING:
    from dlzoo.runtime.serve.repository import IndexEntry
    from dlzoo.runtime.serve.served import Served


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

    @classmethod
    def of(cls, served: Served, worker: str = "") -> ProcessCounts:
        """The counts of this process as they are now."""
        return cls(
            worker,
            os.getpid(),
            served.is_ready,
            served.num_unauthenticated,
            [
                ModelCounts(model.name, model.version, model.num_waiting, model.statistics)
                for model in served.repository.models()
            ],
        )


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


class OwnControl:
    """The control of a server that is one process."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def load(self, name: str) -> None:
        """Load a model, or load it again."""
        await self._served.repository.load(name)

    async def unload(self, name: str) -> None:
        """Take no more requests for a model."""
        await self._served.repository.unload(name)

    async def index(self) -> list[IndexEntry]:
        """Every version that lies in the folders or is loaded."""
        return await asyncio.to_thread(self._served.repository.index)

    async def counts(self) -> list[ProcessCounts]:
        """What this process counted."""
        return [ProcessCounts.of(self._served)]


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
