"""Declared divergences: where a runtime treats NaN or Inf unlike PyTorch, and why that passes.

Measured on every operator of the zoo with one NaN, +Inf or -Inf element, at all optimization
levels; the tests measure the entry again. Not in the table because there is no difference to
declare: GELU(+Inf) is NaN only in PyTorch's float32 kernel, and the reference is float64 (+Inf,
as in ONNX Runtime); the CUDA provider's Relu and MaxPool keep NaN (its sources: ``_Max`` in
``cu_inc/common.cuh``, ``CUDNN_PROPAGATE_NAN`` in ``nn/pool.cc``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Elements whose reference is ``reference`` may be anything on this provider, if ``op`` is there.

    ``index`` stands for whole numbers that come of inputs with NaN or Inf.
    """

    op: str
    provider: str
    reference: Literal["NaN", "+Inf", "-Inf", "index"]
    reason: str


def _index_of_nan(op: str, provider: str) -> Divergence:
    return Divergence(
        op=op,
        provider=provider,
        reference="index",
        reason="PyTorch takes NaN for the largest of all numbers; ONNX leaves its place open.",
    )


def _recurrent(op: str) -> Divergence:
    return Divergence(
        op=op,
        provider="cpu",
        reference="NaN",
        reason=f"ONNX Runtime's CPU {op} clips what goes into its gates, which turns NaN into a number.",
    )


DIVERGENCES = (
    Divergence(
        op="MaxPool",
        provider="cpu",
        reference="NaN",
        reason=(
            "ONNX Runtime's CPU MaxPool keeps a NaN only where it is compared last in its window "
            "(x86's MAXPS returns its second operand); PyTorch's keeps every NaN."
        ),
    ),
    *(_recurrent(op) for op in ("LSTM", "GRU")),
    *(
        _index_of_nan(op, provider)
        for op in ("TopK", "ArgMax", "ArgMin")
        for provider in ("cpu", "cuda")
    ),
)


def declared_divergences(ops: Iterable[str], provider: str) -> tuple[Divergence, ...]:
    """The entries for a graph that holds the operators ``ops``, run on ``provider``."""
    present = set(ops)
    return tuple(d for d in DIVERGENCES if d.provider == provider and d.op in present)
