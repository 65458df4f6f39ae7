"""The supervisor starts workers, forwards calls to all of them, and replaces one that has ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dlzoo.errors import ArgumentError, BundleError, DlzooError, ServerError
from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.control import ProcessCounts
from dlzoo.runtime.serve.models.repository import LoadedVersion
from dlzoo.runtime.serve.models.served_model import ModelSettings
from dlzoo.runtime.serve.process.address import Address
from dlzoo.runtime.serve.process.listeners import check_certificate, http_url
from dlzoo.runtime.serve.process.settings import Listening, ServerSettings
from dlzoo.runtime.serve.process.sockets import bound_socket
from dlzoo.runtime.serve.process.stop_signals import StopSignals
from dlzoo.runtime.serve.workers.channel import ChannelClosedError
from dlzoo.runtime.serve.workers.worker import Change, WorkerSettings
from dlzoo.runtime.serve.workers.worker_process import WorkerProcess

_logger = logging.getLogger("dlzoo.serve")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
#: A worker that has not ended this long after its drain's time limit is killed.
_KILL_AFTER_S = 5.0


async def serve_with_workers(
    sources: Sequence[Path],
    model_settings: ModelSettings,
    settings: ServerSettings,
    *,
    num_workers: int,
    keep_versions: int = 1,
    on_ready: Callable[[Listening], None],
) -> None:
    """Serve in several processes until SIGTERM or SIGINT; one that ends is replaced.

    Args:
        sources: bundles and model repositories.
        model_settings: how models are opened and run in each process.
        settings: addresses, and limits of each process.
        num_workers: how many processes.
        keep_versions: how many versions of a model to serve.
        on_ready: called as soon as requests are answered.

    Raises:
        DlzooError: an address is in use, or a model cannot be served.
    """
    if sys.platform != "linux":
        raise ArgumentError(
            f"`num_workers` is {num_workers}, expected 1 on {sys.platform}: only Linux spreads the "
            "connections of one port over several processes. Put a proxy in front of several servers."
        )
    stop = StopSignals()
    check_certificate(settings)
    with _held_ports(settings) as settings:
        worker_settings = WorkerSettings(
            name="",
            sources=[source.resolve() for source in sources],
            model_settings=dataclasses.replace(model_settings, num_processes=num_workers),
            server_settings=settings,
            keep_versions=keep_versions,
        )
        supervisor = Supervisor(worker_settings, num_workers)
        try:
            if not await stop.is_done_before(supervisor.start()):
                return
            versions = [(version.name, version.version) for version in supervisor.loaded]
            url = http_url(settings, settings.http) if settings.http else None
            address = str(settings.grpc) if settings.grpc else None
            on_ready(Listening(http=url, grpc=address, models=versions))
            await stop.wait()
            _logger.info("no longer ready; finishing the requests in progress")
            await supervisor.retire()
            await stop.delay(settings.drain_delay_s)
            await supervisor.stop(settings.drain_timeout_s + _KILL_AFTER_S)
        finally:
            supervisor.kill()


@contextlib.contextmanager
def _held_ports(settings: ServerSettings) -> Iterator[ServerSettings]:
    """Hold the ports inside the block, for workers to share; yields the settings with their numbers.

    A socket that does not listen gets no connections, but keeps the port while no worker is running.
    """
    with contextlib.ExitStack() as stack:

        def hold(argument: str, address: Address | None) -> Address | None:
            if address is None:
                return None
            # Exclusively first: a shared port could also be shared with an unrelated program.
            with bound_socket(argument, address) as alone:
                alone.listen()
                port = alone.getsockname()[1]
            address = Address(address.host, port)
            stack.enter_context(bound_socket(argument, address, is_shared=True))
            return address

        yield dataclasses.replace(
            settings,
            http=hold("http", settings.http),
            grpc=hold("grpc", settings.grpc),
            shares_ports=True,
        )


class Supervisor:
    """Runs workers that all have the same models."""

    def __init__(self, worker_settings: WorkerSettings, num_workers: int) -> None:
        self._worker_settings = worker_settings
        self._workers = [WorkerProcess(str(i + 1), self._answer) for i in range(num_workers)]
        self._chores: list[asyncio.Task[None]] = []
        #: Held while models change and while a worker joins, so that no worker misses a change.
        self._change = asyncio.Lock()
        self.loaded: list[LoadedVersion] = []

    async def start(self) -> None:
        """Start every worker, and let all listen as soon as all are ready.

        Raises:
            DlzooError: a model cannot be served.
        """
        found = await asyncio.gather(
            *(self._begin(worker, "load_all") for worker in self._workers)
        )
        self.loaded = found[0]
        if any(sorted(versions) != sorted(self.loaded) for versions in found):
            raise BundleError("A bundle was replaced while it was being loaded. Start again.")
        await asyncio.gather(*(self._ask(worker, "listen") for worker in self._workers))
        self._chores = [
            asyncio.create_task(self._keep(index)) for index in range(len(self._workers))
        ]
        self._chores.append(asyncio.create_task(self._poll()))

    async def retire(self) -> None:
        """Let every worker report that it is not ready."""
        for chore in self._chores:
            chore.cancel()
        await self._call_all("retire")

    async def stop(self, timeout_s: float) -> None:
        """Let every worker finish its requests, and end."""
        await self._call_all("stop")
        waits = [asyncio.ensure_future(worker.wait()) for worker in self._workers]
        await asyncio.wait(waits, timeout=timeout_s)

    def kill(self) -> None:
        """Kill the workers that are left."""
        for chore in self._chores:
            chore.cancel()
        for worker in self._workers:
            worker.kill()

    async def _begin(self, worker: WorkerProcess, call: str, *arguments: Any) -> Any:
        """Start a worker and let it load its models."""
        try:
            await worker.start(self._worker_settings)
        except ChannelClosedError:
            raise await self._ended(worker) from None
        return await self._ask(worker, call, *arguments)

    async def _ask(self, worker: WorkerProcess, call: str, *arguments: Any) -> Any:
        try:
            return await worker.channel.call(call, *arguments)
        except ChannelClosedError:
            raise await self._ended(worker) from None

    async def _ended(self, worker: WorkerProcess) -> ServerError:
        return ServerError(
            f"Worker {worker.name} of {len(self._workers)} ended with exit status "
            f"{await worker.wait()} before it was ready. Each worker holds all models: "
            "start fewer, or give the machine more memory."
        )

    async def _call_all(self, name: str) -> list[Any]:
        """Call every running worker; the answers leave out workers that end meanwhile."""
        answers = await asyncio.gather(
            *(worker.channel.call(name) for worker in self._workers), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(
                answer, ChannelClosedError
            ):
                raise answer
        return [answer for answer in answers if not isinstance(answer, ChannelClosedError)]

    # Calls from a worker, on behalf of a client

    async def _answer(self, name: str, *arguments: Any) -> Any:
        if name in ("load", "unload"):
            async with self._change:
                return await self._change_all(name, *arguments)
        if name == "index":
            return await self._first_running().channel.call("index")
        assert name == "counts", name
        counts: list[ProcessCounts] = await self._call_all("counts")
        return counts

    async def _change_all(self, call: str, *arguments: Any) -> None:
        """Change the models of every worker, if the first one finds something to change.

        Raises:
            RefusalError: the first one refuses.
        """
        first = self._first_running()
        change: Change = await first.channel.call(call, *arguments)
        has_changed, self.loaded = change.loaded != self.loaded, change.loaded
        if has_changed:
            others = [w for w in self._workers if w is not first and not w.is_leaving]
            await asyncio.gather(*(self._follow(other, call, *arguments) for other in others))
        if change.refusal is not None:
            raise change.refusal

    async def _follow(self, worker: WorkerProcess, call: str, *arguments: Any) -> None:
        try:
            change: Change = await worker.channel.call(call, *arguments)
            if change.loaded != self.loaded:
                # Its replacement will load what the others have.
                _logger.warning("worker %s did not follow and is replaced", worker.name)
                worker.is_leaving = True
                await worker.channel.call("stop")
        except ChannelClosedError:
            _logger.warning("worker %s ended while models changed", worker.name)

    def _first_running(self) -> WorkerProcess:
        for worker in self._workers:
            if not (worker.is_leaving or worker.channel.closed.is_set()):
                return worker
        raise RefusalError("no process of this server is ready", Reason.UNAVAILABLE)

    async def _poll(self) -> None:
        every_s = self._worker_settings.server_settings.poll_s
        while every_s:
            await asyncio.sleep(every_s)
            try:
                async with self._change:
                    await self._change_all("poll")
            except Exception:  # a folder that cannot be read now may be readable the next time
                _logger.exception("polling failed")

    # Replacing workers

    async def _keep(self, index: int) -> None:
        """Replace the worker at this index whenever it ends."""
        pause_s = _FIRST_PAUSE_S
        while True:
            worker = self._workers[index]
            since_s = asyncio.get_running_loop().time()
            status = await worker.wait()
            await worker.channel.closed.wait()
            _logger.error("worker %s ended with exit status %s", worker.name, status)
            if asyncio.get_running_loop().time() - since_s > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            while self._workers[index] is worker:
                # A worker that ends as soon as it starts must not keep the machine busy.
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                try:
                    async with self._change:
                        await self._replace(index)
                    _logger.info("worker %s was replaced", worker.name)
                except (DlzooError, RefusalError, OSError) as error:
                    _logger.error("worker %s is not replaced: %s", worker.name, error)

    async def _replace(self, index: int) -> None:
        worker = WorkerProcess(self._workers[index].name, self._answer)
        try:
            await self._begin(worker, "load_exactly", self.loaded)
            await self._ask(worker, "listen")
        except BaseException:
            worker.kill()
            raise
        self._workers[index] = worker
