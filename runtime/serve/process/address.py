"""Where a server listens."""

from __future__ import annotations

from dataclasses import dataclass

from dlzoo.errors import ArgumentError


@dataclass(frozen=True)
class Address:
    """A host and a port; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str, option: str) -> Address | None:
        """Read ``HOST:PORT``; ``off`` is None.

        Raises:
            ArgumentError: it is neither.
        """
        if text == "off":
            return None
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ArgumentError(
                f"{option} is {text!r}, expected HOST:PORT or off, such as 127.0.0.1:8000."
            )
        return cls(host, int(port))
