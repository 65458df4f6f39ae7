"""Whether a comparison could have failed: does it tell outputs of faulty weights from right ones?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dlzoo.export.bundle import GoldenSet
from dlzoo.runtime.compare import UNIT_ROUNDOFFS, compare_outputs
from dlzoo.runtime.report import Power


def judge_faults(
    faulty_outputs: Iterable[tuple[str, Mapping[str, Any]]],
    golden: GoldenSet,
    *,
    dtypes: Mapping[str, str],
    sampled_of: int,
    rho2_limit: float,
    rhomax_limit: float,
) -> Power:
    """How many small faults in single weight tensors the comparison catches.

    Args:
        faulty_outputs: name of the tensor and what then comes out: PyTorch's own float32, which
            the rule has to tell from right ones.
        golden: the right outputs, of the same inputs.
        dtypes: output name -> the numpy dtype name that the model declares.
        sampled_of: tensors in all, of which some were tried.
        rho2_limit: of the verdict.
        rhomax_limit: of the verdict.
    """
    verdicts = {
        tensor: compare_outputs(
            outputs,
            golden,
            dtypes=dtypes,
            unit_roundoff=UNIT_ROUNDOFFS["float32"],
            rho2_limit=rho2_limit,
            rhomax_limit=rhomax_limit,
        )
        for tensor, outputs in faulty_outputs
    }
    missed = tuple(tensor for tensor, verdict in verdicts.items() if verdict)
    return Power(
        detected=len(verdicts) - len(missed),
        tried=len(verdicts),
        sampled_of=sampled_of,
        missed=missed,
    )
