"""One problem in a file of a deployment, and its place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One problem in a file; as text, one line with the file, the field, the got and the expected.

    >>> print(Problem("net/config.pbtxt", "input[0].dims", "is [3], the graph has [1, 32, 32]"))
    net/config.pbtxt: input[0].dims is [3], the graph has [1, 32, 32]
    """

    file: str
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.field} {self.message}" if self.field else self.message
        return f"{self.file}: {where}"
