"""The declaration of one input or output: name, dtype and sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: its name, numpy dtype name, and sizes (a str is a symbol)."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(str(size) for size in self.dims)}]"
