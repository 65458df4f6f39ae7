"""The HTTP and gRPC servers of a process: bound, started, and stopped without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import grpc
import uvicorn

from dlzoo.errors import ArgumentError
from dlzoo.runtime.serve.grpc.grpc_messages import add_service
from dlzoo.runtime.serve.grpc.grpc_service import InferenceService
from dlzoo.runtime.serve.http.http_protocol import HttpProtocol
from dlzoo.runtime.serve.http.http_service import HttpService
from dlzoo.runtime.serve.process.address import Address
from dlzoo.runtime.serve.process.settings import ServerSettings
from dlzoo.runtime.serve.process.sockets import BACKLOG, bound_socket, cannot_listen
from dlzoo.runtime.serve.served import Served

#: The most calls that run or wait, over all models; beyond it gRPC answers RESOURCE_EXHAUSTED.
_MAX_GRPC_CALLS = 1024


class Listeners:
    """The HTTP and gRPC servers of one process."""

    def __init__(self, settings: ServerSettings) -> None:
        """Bind the ports, on the running event loop; clients wait until :meth:`start`.

        Raises:
            ArgumentError: a port is taken.
        """
        self._settings = settings
        self._socket = None
        if settings.http is not None:
            self._socket = bound_socket("http", settings.http, is_shared=settings.shares_ports)
            self._socket.listen(BACKLOG)
        self._http: uvicorn.Server | None = None
        self._http_task: asyncio.Task[None] | None = None
        self._service: HttpService | None = None
        try:
            self._grpc, self._grpc_address = _grpc_server(settings)
        except ArgumentError:
            self.close()
            raise

    @property
    def http_url(self) -> str | None:
        """The URL of the HTTP server; None if it is off."""
        if self._socket is None or self._settings.http is None:
            return None
        address = Address(self._settings.http.host, self._socket.getsockname()[1])
        return http_url(self._settings, address)

    @property
    def grpc_address(self) -> str | None:
        """The address of the gRPC server; None if it is off."""
        return str(self._grpc_address) if self._grpc_address else None

    async def start(self, served: Served) -> None:
        """Begin to answer requests."""
        self._service = HttpService(served)
        if self._socket is not None:
            self._http = _http_server(self._service, self._settings)
            self._http_task = asyncio.create_task(self._http.serve([self._socket]))
            while not self._http.started and not self._http_task.done():
                await asyncio.sleep(0.005)
        if self._grpc is not None:
            add_service(InferenceService(served), self._grpc)
            await self._grpc.start()

    async def stop(self) -> None:
        """Stop listening, and finish the requests that have arrived."""
        waits: list[Any] = []
        if self._http is not None and self._http_task is not None:
            self._http.should_exit = True
            waits.append(self._http_task)
        if self._grpc is not None:
            waits.append(self._grpc.stop(self._settings.drain_timeout_s))
        await asyncio.gather(*waits)

    def close(self) -> None:
        """Release ports and threads."""
        if self._socket is not None:
            self._socket.close()
        if self._service is not None:
            self._service.close()


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: dlzoo's server handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def http_url(settings: ServerSettings, address: Address) -> str:
    """Build the URL of an address."""
    return f"{'https' if settings.tls_cert is not None else 'http'}://{address}"


def check_certificate(settings: ServerSettings) -> None:
    """Check the certificate and its key, which HTTP and gRPC would check differently or not at all.

    Raises:
        ArgumentError: the certificate or its key cannot be used.
    """
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
            f"`tls_cert` and `tls_key` cannot be used: {reason}. "
            "Give a PEM certificate and its unencrypted key."
        ) from None


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
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(settings.drain_timeout_s),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return _HttpServer(config)


def _grpc_server(settings: ServerSettings) -> tuple[Any, Address | None]:
    if settings.grpc is None:
        return None, None
    if not settings.shares_ports:
        # For a port that is in use, gRPC itself would print three lines on stderr.
        bound_socket("grpc", settings.grpc).close()
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_MAX_GRPC_CALLS,
        options=[
            ("grpc.max_receive_message_length", settings.limits.request_bytes),
            ("grpc.max_send_message_length", -1),
            # By default a second server would silently share the port.
            ("grpc.so_reuseport", int(settings.shares_ports)),
        ],
    )
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
        raise cannot_listen("grpc", settings.grpc, OSError(0, "the address is in use"))
    return server, Address(settings.grpc.host, port)
