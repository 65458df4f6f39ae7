"""Whether a comparison could have failed: does it tell outputs of faulty weights from right ones?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS, compare_outputs
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.report import Power

Outputs = Mapping[str, npt.NDArray[Any]]


#: At most this share of the tensors may be left out for having no effect on the outputs.
_MAX_WITHOUT_EFFECT = 0.5


def judge_faults(
    faulty_outputs: Iterable[tuple[str, Outputs]],
    gross_outputs: Callable[[Sequence[str]], Iterable[tuple[str, Outputs]]],
    golden: GoldenSet,
    *,
    dtypes: Mapping[str, str],
    sampled_of: int,
    limits: Limits,
) -> Power:
    """How many small faults in single weight tensors the comparison catches.

    A tensor in which even a gross fault changes nothing has no effect on the outputs (a bias before
    an instance normalization): no proof could see it, and none needs to. Such tensors are left
    out, unless they are more than half of those tried: then no signal flows.

    Args:
        faulty_outputs: name of the tensor and what then comes out: PyTorch's own float32, which
            the rule has to tell from right ones.
        gross_outputs: the same with gross faults, for the tensors that are named.
        golden: the right outputs, of the same inputs.
        dtypes: output name -> the numpy dtype name that the model declares.
        sampled_of: tensors in all, of which some were tried.
        limits: of the verdict.
    """

    def is_noticed(outputs: Outputs) -> bool:
        return not compare_outputs(
            outputs,
            golden,
            dtypes=dtypes,
            unit_roundoff=UNIT_ROUNDOFFS["float32"],
            limits=limits,
        )

    noticed = {tensor: is_noticed(outputs) for tensor, outputs in faulty_outputs}
    missed = [tensor for tensor, is_seen in noticed.items() if not is_seen]
    without_effect: list[str] = []
    if len(missed) <= _MAX_WITHOUT_EFFECT * len(noticed):
        without_effect = [
            tensor for tensor, outputs in gross_outputs(missed) if not is_noticed(outputs)
        ]
    tried = len(noticed) - len(without_effect)
    return Power(
        detected=len(noticed) - len(missed),
        tried=tried,
        sampled_of=sampled_of,
        missed=tuple(tensor for tensor in missed if tensor not in without_effect),
        without_effect=tuple(without_effect),
    )
