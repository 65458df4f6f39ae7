"""Measure what TF32 would change: CUDA's products with 10 bits of fraction in place of 23.

ONNX Runtime has it on by default; for parity it is off (``providers.PROVIDERS``), and its effect
is reported as a note, for those who turn it on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS, Comparison, compare_outputs
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.session.session import open_session


def tf32_note(
    model: Bundle | Path,
    golden_sets: Sequence[GoldenSet],
    *,
    dtypes: Mapping[str, str],
    limits: Limits,
    allow_fallback: bool,
) -> str:
    """Run once more on CUDA with TF32 on, and say how far from the reference that is.

    Raises:
        ProviderError: CUDA is missing or did not take the work.
    """
    session = open_session(model, "cuda", allow_fallback=allow_fallback, allow_tf32=True)
    comparisons = [
        compare_outputs(
            session.run(golden.inputs),
            golden,
            dtypes=dtypes,
            unit_roundoff=UNIT_ROUNDOFFS["float32"],
            limits=limits,
        )
        for golden in golden_sets
        if golden.is_finite
    ]
    return describe_tf32(comparisons)


def describe_tf32(comparisons: Sequence[Comparison]) -> str:
    """The worst of several comparisons as a sentence; they decide nothing."""
    rho2 = max((c.rho2 for c in comparisons if c.rho2 is not None), default=None)
    rhomax = max((c.rhomax for c in comparisons if c.rhomax is not None), default=None)
    if rho2 is None or rhomax is None:
        return "TF32 is off; with it on no output is a number to compare"
    return (
        f"TF32 is off; with it on, CUDA's error would be {rho2:.3g} (rhomax {rhomax:.3g}) times "
        "float32's own"
    )
