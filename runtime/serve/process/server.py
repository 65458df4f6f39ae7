"""Serve in one process: start, answer until a signal arrives, and stop without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from dlzoo.image_file import decoder_warnings
from dlzoo.runtime.serve.limits import ByteBudget
from dlzoo.runtime.serve.models.freed_memory import give_back_freed_memory
from dlzoo.runtime.serve.models.repository import Repository
from dlzoo.runtime.serve.models.served_model import ModelSettings
from dlzoo.runtime.serve.process.listeners import Listeners, check_certificate
from dlzoo.runtime.serve.process.settings import Listening, ServerSettings
from dlzoo.runtime.serve.process.stop_signals import StopSignals
from dlzoo.runtime.serve.served import Served

_logger = logging.getLogger("dlzoo.serve")
_GIVE_BACK_EVERY_S = 3.0
_GIVE_BACK_FROM_BYTES = 8 * 2**20


async def serve(
    sources: Sequence[Path],
    model_settings: ModelSettings,
    settings: ServerSettings,
    *,
    keep_versions: int = 1,
    on_ready: Callable[[Listening], None],
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        sources: bundles and model repositories.
        model_settings: how models are opened and run.
        settings: addresses and limits.
        keep_versions: how many versions of a model to serve.
        on_ready: called as soon as requests are answered.

    Raises:
        DlzooError: an address is in use, or a model cannot be served.
    """
    stop = StopSignals()
    check_certificate(settings)
    # Bind the ports first, so that nothing is loaded if one is in use.
    with contextlib.closing(Listeners(settings)) as listeners:
        repository = Repository(sources, model_settings, keep_versions=keep_versions)
        served = Served(
            repository,
            settings.limits,
            api_key=settings.api_key,
            fixed_models=settings.fixed_models,
        )
        if not await stop.is_done_before(repository.load_all()):
            return
        async with taking_requests(served, listeners):
            on_ready(
                Listening(
                    http=listeners.http_url,
                    grpc=listeners.grpc_address,
                    models=[(model.name, model.version) for model in repository.models()],
                )
            )
            polling = asyncio.create_task(_poll(repository, settings.poll_s))
            await stop.wait()
            polling.cancel()
            _logger.info("no longer ready; finishing the requests in progress")
            served.is_ready = False
            await stop.delay(settings.drain_delay_s)


@contextlib.asynccontextmanager
async def taking_requests(served: Served, listeners: Listeners) -> AsyncIterator[None]:
    """Answer requests inside the block; its end waits for the requests in progress."""
    # Warnings of decoders are filtered per process, so the filter is set once for all threads.
    with decoder_warnings():
        await listeners.start(served)
        giving_back = asyncio.create_task(_give_back_memory(served.budget))
        served.is_ready = True
        yield
        served.is_ready = False
        giving_back.cancel()
        await listeners.stop()
        await served.repository.close()


async def _poll(repository: Repository, every_s: float) -> None:
    while every_s:
        await asyncio.sleep(every_s)
        try:
            await repository.poll()
        except Exception:  # a folder that cannot be read now may be readable the next time
            _logger.exception("polling failed")


async def _give_back_memory(budget: ByteBudget) -> None:
    """Return memory to the system when many bytes of requests were held and none are left."""
    while True:
        await asyncio.sleep(_GIVE_BACK_EVERY_S)
        if budget.is_idle and budget.take_peak() >= _GIVE_BACK_FROM_BYTES:
            await asyncio.to_thread(give_back_freed_memory)
