"""Start, serve until a signal comes, and stop without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from dlzoo.errors import ArgumentError
from dlzoo.image_file import decoder_warnings
from dlzoo.runtime.serve.address import Address
from dlzoo.runtime.serve.freed_memory import give_back_freed_memory
from dlzoo.runtime.serve.grpc_messages import add_service
from dlzoo.runtime.serve.grpc_service import InferenceService
from dlzoo.runtime.serve.http_protocol import HttpProtocol
from dlzoo.runtime.serve.http_service import HttpService
from dlzoo.runtime.serve.limits import ByteBudget, Limits
from dlzoo.runtime.serve.repository import Repository
from dlzoo.runtime.serve.served import Served
from dlzoo.runtime.serve.served_model import ModelSettings

_logger = logging.getLogger("dlzoo.serve")
#: Calls that are answered or wait, over all models; beyond it gRPC itself says RESOURCE_EXHAUSTED.
_MAX_GRPC_CALLS = 1024
_BACKLOG = 1024
_GIVE_BACK_EVERY_S = 3.0
_GIVE_BACK_FROM_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a server listens on, and what it lets clients do.

    ``drain_delay_s`` is how long it says that it is not ready, and still takes new work, before it
    stops listening; ``drain_timeout_s`` how long it then waits for what it has taken.
    """

    http: Address | None
    grpc: Address | None
    limits: Limits = field(default_factory=Limits)
    api_key: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    fixed_models: bool = False
    poll_s: float = 0.0
    drain_delay_s: float = 1.0
    drain_timeout_s: float = 30.0


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and what it serves: (model, version)."""

    http: str | None
    grpc: str | None
    models: list[tuple[str, str]]


class _HttpServer(uvicorn.Server):
    """uvicorn without signal handlers of its own: :func:`serve` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
        keep_versions: how many versions of a model are served.
        on_ready: is told when requests are answered.

    Raises:
        DlzooError: an address is taken, or a model cannot be served.
    """
    stop = asyncio.Event()
    signals: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        signals.append(number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    with contextlib.ExitStack() as stack:
        _check_certificate(settings)
        # The ports first: where one is taken, nothing is loaded in vain.
        http_socket = None
        if settings.http is not None:
            http_socket = stack.enter_context(_bound_socket(settings.http))
        repository = Repository(sources, model_settings, keep_versions=keep_versions)
        served = Served(
            repository,
            settings.limits,
            api_key=settings.api_key,
            fixed_models=settings.fixed_models,
        )
        grpc_server, grpc_address = _grpc_server(served, settings)
        loading = asyncio.ensure_future(repository.load_all())
        await asyncio.wait(
            {loading, asyncio.ensure_future(stop.wait())}, return_when="FIRST_COMPLETED"
        )
        if not loading.done():
            return
        loading.result()
        # Decoders warn through a filter of the whole process, so it is set once for all threads.
        stack.enter_context(decoder_warnings())
        service = HttpService(served)
        http_server, http_task = None, None
        if http_socket is not None:
            http_server = _http_server(service, settings)
            http_task = loop.create_task(http_server.serve([http_socket]))
            while not http_server.started and not http_task.done():
                await asyncio.sleep(0.005)
        if grpc_server is not None:
            await grpc_server.start()
        served.is_ready = True
        on_ready(
            Listening(
                http=_url(settings, http_socket),
                grpc=str(grpc_address) if grpc_address else None,
                models=[(model.name, model.version) for model in repository.models()],
            )
        )
        chores = [
            loop.create_task(_poll(repository, settings.poll_s)),
            loop.create_task(_give_back_memory(served.budget)),
        ]
        await stop.wait()
        for chore in chores:
            chore.cancel()
        _logger.info("no longer ready; answering what has come")
        served.is_ready = False
        if signals == [signal.SIGTERM]:
            # Load balancers look now and then; a second signal, or Ctrl-C, does not wait for them.
            stop.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), settings.drain_delay_s)
        await _stop(http_server, http_task, grpc_server, settings.drain_timeout_s)
        service.close()
        await repository.close()


async def _stop(
    http_server: uvicorn.Server | None,
    http_task: asyncio.Task[None] | None,
    grpc_server: Any,
    timeout_s: float,
) -> None:
    """Stop listening, and wait for what has been taken."""
    waits: list[Any] = []
    if http_server is not None and http_task is not None:
        http_server.should_exit = True
        waits.append(http_task)
    if grpc_server is not None:
        waits.append(grpc_server.stop(timeout_s))
    await asyncio.gather(*waits)


async def _poll(repository: Repository, every_s: float) -> None:
    while every_s:
        await asyncio.sleep(every_s)
        try:
            await repository.poll()
        except Exception:  # a folder that cannot be read now may be readable next time
            _logger.exception("polling failed")


async def _give_back_memory(budget: ByteBudget) -> None:
    """After many bytes of requests at a time, and when none are left, memory goes to the system."""
    while True:
        await asyncio.sleep(_GIVE_BACK_EVERY_S)
        if budget.is_idle and budget.take_peak() >= _GIVE_BACK_FROM_BYTES:
            await asyncio.to_thread(give_back_freed_memory)


def _bound_socket(address: Address) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise _cannot_listen("--http", address, error) from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise _cannot_listen("--http", address, error) from None
    return bound


def _cannot_listen(option: str, address: Address, error: OSError) -> ArgumentError:
    reason = (error.strerror or str(error)).lower()
    return ArgumentError(
        f"The server cannot listen on {address} ({option}): {reason}. "
        "Stop what listens there, or give another address; port 0 takes any free one."
    )


def _http_server(service: HttpService, settings: ServerSettings) -> uvicorn.Server:
    config = uvicorn.Config(
        service.app(),
        http=HttpProtocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(settings.drain_timeout_s),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return _HttpServer(config)


def _check_certificate(settings: ServerSettings) -> None:
    """What HTTP and gRPC would each say in their own way, or not at all."""
    if settings.tls_cert is None or settings.tls_key is None:
        return

    def refuse_password() -> str:
        raise ValueError("the key is encrypted")

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert, settings.tls_key, refuse_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ArgumentError(
            f"--tls-cert and --tls-key cannot be used: {reason}. "
            "Give a PEM certificate and its unencrypted key."
        ) from None


def _grpc_server(served: Served, settings: ServerSettings) -> tuple[Any, Address | None]:
    if settings.grpc is None:
        return None, None
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_MAX_GRPC_CALLS,
        options=[
            ("grpc.max_receive_message_length", settings.limits.request_bytes),
            ("grpc.max_send_message_length", -1),
            # Or a second server would share the port without a word.
            ("grpc.so_reuseport", 0),
        ],
    )
    add_service(InferenceService(served), server)
    try:
        if settings.tls_cert is not None and settings.tls_key is not None:
            pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
            credentials = grpc.ssl_server_credentials([pair])
            port = server.add_secure_port(str(settings.grpc), credentials)
        else:
            port = server.add_insecure_port(str(settings.grpc))
    except RuntimeError:
        port = 0
    if not port:
        raise _cannot_listen("--grpc", settings.grpc, OSError(0, "the address is in use"))
    return server, Address(settings.grpc.host, port)


def _url(settings: ServerSettings, bound: socket.socket | None) -> str | None:
    if bound is None or settings.http is None:
        return None
    scheme = "https" if settings.tls_cert is not None else "http"
    return f"{scheme}://{Address(settings.http.host, bound.getsockname()[1])}"
