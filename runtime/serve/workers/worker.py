"""One of several processes that serve the same models on the same ports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlzoo.runtime.protocol.refusal import RefusalError
from dlzoo.runtime.serve.control import ProcessCounts
from dlzoo.runtime.serve.models.repository import IndexEntry, LoadedVersion, Repository
from dlzoo.runtime.serve.models.served_model import ModelSettings
from dlzoo.runtime.serve.process.listeners import Listeners
from dlzoo.runtime.serve.process.server import taking_requests
from dlzoo.runtime.serve.process.settings import ServerSettings
from dlzoo.runtime.serve.served import Served
from dlzoo.runtime.serve.workers.channel import Channel


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """The settings that a worker starts with; the ports in ``server_settings`` are never 0."""

    name: str
    sources: Sequence[Path]
    model_settings: ModelSettings
    server_settings: ServerSettings
    keep_versions: int


@dataclass(frozen=True)
class Change:
    """The models of a worker after a call that may change them, and the call's refusal.

    Both can change: a load that refuses the newest version may still load a newer one than before.
    """

    loaded: list[LoadedVersion]
    refusal: RefusalError | None


class SupervisorControl:
    """The control of a server with several processes, which asks the supervisor."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def load(self, name: str) -> None:
        """Load a model in every worker."""
        await self._channel.call("load", name)

    async def unload(self, name: str) -> None:
        """Unload a model in every worker."""
        await self._channel.call("unload", name)

    async def index(self) -> list[IndexEntry]:
        """List every version that is in the folders or loaded."""
        entries: list[IndexEntry] = await self._channel.call("index")
        return entries

    async def counts(self) -> list[ProcessCounts]:
        """Return the counts of each worker."""
        counts: list[ProcessCounts] = await self._channel.call("counts")
        return counts


class Worker:
    """A server that also answers the supervisor's calls.

    The calls arrive in this order: ``configure``; ``load_all`` or ``load_exactly``; ``listen``; any of
    ``load``, ``unload``, ``poll``, ``index``, ``counts``; ``retire``; ``stop``.
    """

    def __init__(self) -> None:
        self._channel = Channel(self._answer)
        self._settings: WorkerSettings | None = None
        self._served: Served | None = None
        self._running = contextlib.AsyncExitStack()
        self._stopped = asyncio.Event()

    async def run(self, end: socket.socket) -> None:
        """Serve until the supervisor calls ``stop``, or has ended."""
        await self._channel.open(end)
        waits = [
            asyncio.ensure_future(self._stopped.wait()),
            asyncio.ensure_future(self._channel.closed.wait()),
        ]
        await asyncio.wait(waits, return_when="FIRST_COMPLETED")
        # The requests in progress are finished even if the supervisor has ended.
        await self._running.aclose()
        self._channel.close()

    async def _answer(self, name: str, *arguments: Any) -> Any:
        return await getattr(self, f"_{name}")(*arguments)

    async def _configure(self, settings: WorkerSettings) -> None:
        logging.basicConfig(
            format=f"%(asctime)s %(levelname)s worker {settings.name}: %(message)s",
            level=logging.INFO,
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self._settings = settings
        repository = Repository(
            settings.sources, settings.model_settings, keep_versions=settings.keep_versions
        )
        self._served = Served(
            repository,
            settings.server_settings.limits,
            api_key=settings.server_settings.api_key,
            fixed_models=settings.server_settings.fixed_models,
            control=SupervisorControl(self._channel),
        )

    @property
    def _repository(self) -> Repository:
        assert self._served is not None
        return self._served.repository

    async def _load_all(self) -> list[LoadedVersion]:
        await self._repository.load_all()
        return self._repository.loaded_versions()

    async def _load_exactly(self, wanted: Sequence[LoadedVersion]) -> list[LoadedVersion]:
        await self._repository.load_exactly(wanted)
        return self._repository.loaded_versions()

    async def _listen(self) -> None:
        assert self._settings is not None and self._served is not None
        # Not earlier, because the kernel gives connections to every process that listens.
        listeners = self._running.enter_context(
            contextlib.closing(Listeners(self._settings.server_settings))
        )
        await self._running.enter_async_context(taking_requests(self._served, listeners))

    async def _load(self, name: str) -> Change:
        return await self._changed(self._repository.load(name))

    async def _unload(self, name: str) -> Change:
        return await self._changed(self._repository.unload(name))

    async def _poll(self) -> Change:
        return await self._changed(self._repository.poll())

    async def _changed(self, work: Awaitable[None]) -> Change:
        refusal = None
        try:
            await work
        except RefusalError as error:
            refusal = error
        return Change(self._repository.loaded_versions(), refusal)

    async def _index(self) -> list[IndexEntry]:
        return await asyncio.to_thread(self._repository.index)

    async def _counts(self) -> ProcessCounts:
        assert self._served is not None and self._settings is not None
        return self._served.counts(self._settings.name)

    async def _retire(self) -> None:
        assert self._served is not None
        self._served.is_ready = False

    async def _stop(self) -> None:
        self._stopped.set()
