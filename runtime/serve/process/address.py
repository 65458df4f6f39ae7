"""The address that a server listens on."""

from __future__ import annotations

from dataclasses import dataclass

from dlzoo.errors import ArgumentError


@dataclass(frozen=True)
class Address:
    """A host and a port; port 0 stands for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str, argument: str) -> Address | None:
        """Read ``HOST:PORT``; ``off`` gives None.

        Args:
            text: what the user gave.
            argument: the argument's name, for messages.

        Raises:
            ArgumentError: the text is neither.
        """
        if text == "off":
            return None
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ArgumentError(
                f"`{argument}` is {text!r}, expected HOST:PORT or off, such as 127.0.0.1:8000."
            )
        return cls(host, int(port))
