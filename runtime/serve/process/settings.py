"""What a server is told when it starts, and what it tells when it is ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dlzoo.runtime.serve.limits import Limits
from dlzoo.runtime.serve.process.address import Address


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a server listens on, and what it lets clients do.

    ``drain_delay_s`` is how long it says that it is not ready, and still takes new work, before it
    stops listening; ``drain_timeout_s`` how long it then waits for what it has taken.
    ``shares_ports``: other processes may listen on the same ports, too.
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
    shares_ports: bool = False


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and what it serves: (model, version)."""

    http: str | None
    grpc: str | None
    models: list[tuple[str, str]]
