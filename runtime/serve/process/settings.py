"""The settings that a server starts with, and the addresses that it reports when it is ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dlzoo.runtime.serve.limits import ServerLimits
from dlzoo.runtime.serve.process.address import Address


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The addresses of a server, and what it lets clients do.

    Attributes:
        http: the address for HTTP; None for no HTTP.
        grpc: the address for gRPC; None for no gRPC.
        limits: the limits on requests.
        api_key: the key that clients must send; None for none.
        tls_cert: a PEM certificate; with it both protocols use TLS.
        tls_key: the certificate's unencrypted key.
        fixed_models: whether clients may not load or unload models.
        poll_s: seconds between checks of the folders for new versions; 0 for never.
        drain_delay_s: how long the server reports that it is not ready, and still accepts requests,
            before it stops listening.
        drain_timeout_s: how long it then waits for the requests in progress.
        shares_ports: whether other processes may listen on the same ports.
    """

    http: Address | None
    grpc: Address | None
    limits: ServerLimits = field(default_factory=ServerLimits)
    api_key: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    fixed_models: bool = False
    poll_s: float = 0.0
    drain_delay_s: float = 1.0
    drain_timeout_s: float = 30.0
    shares_ports: bool = False


@dataclass(frozen=True)
class Listening:
    """The addresses of a running server, and its models as (name, version)."""

    http: str | None
    grpc: str | None
    models: list[tuple[str, str]]
