"""One mistake in a file for a server, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong in a file: one line with the file, the field, what was got and expected.

    >>> print(Fault("net/config.pbtxt", "input[0].dims", "is [3], the graph has [1, 32, 32]"))
    net/config.pbtxt: input[0].dims is [3], the graph has [1, 32, 32]
    """

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.field} {self.message}" if self.field else self.message
        return f"{self.file}: {where}"
