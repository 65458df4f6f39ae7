"""The settings of a run: provider, optimization level, and all else that a session takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dlzoo.errors import ArgumentError
from dlzoo.runtime.session.custom_ops import AUTO

#: ONNX Runtime's graph optimization levels, the lowest first, by the names used here.
OPTIMIZATIONS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One way to run a model: a candidate, in the words of docs/DESIGN.md.

    Attributes:
        provider: a name from ``providers.PROVIDERS``, such as ``cpu`` or ``cuda``.
        optimization: ``disabled``, ``basic``, ``extended`` or ``all``.
        allow_fallback: whether nodes may run on another provider. A tapped session never checks
            where nodes run, as taps change that.
        num_threads: threads within one operator; ONNX Runtime's choice if None.
        native_library: kernels for operators of domain ``dlzoo``: a path, ``auto`` or ``off``, as
            for ``custom_ops.find_native_library``.
        allow_tf32: whether CUDA may round the factors of products to 10 bits of fraction.
        session_config: ONNX Runtime's session configuration entries.
        disabled_passes: names of ONNX Runtime's graph transformers and rewrite rules that are
            left out.

    Raises:
        ArgumentError: no optimization level has that name.
    """

    provider: str = "cpu"
    optimization: str = "all"
    allow_fallback: bool = False
    num_threads: int | None = None
    native_library: str | Path = AUTO
    allow_tf32: bool = False
    session_config: Mapping[str, str] = field(default_factory=dict, hash=False)
    disabled_passes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.optimization not in OPTIMIZATIONS:
            raise ArgumentError(
                f"No optimization level is named {self.optimization!r}, expected one of "
                f"{', '.join(OPTIMIZATIONS)}."
            )

    def __str__(self) -> str:
        return f"{self.provider}, optimization {self.optimization}"

    def without(self, passes: Iterable[str]) -> RunSettings:
        """The same with these passes disabled."""
        return replace(self, disabled_passes=tuple(passes))


#: On the CPU with graph optimization disabled: the model as it was written.
AS_WRITTEN = RunSettings(optimization="disabled")
