"""How small a change in each weight tensor the comparison of a network would notice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlzoo.export.reference.reference import run_in_float32
from dlzoo.export.reference.sensitivity import NEARLY_ZERO, measure_effects, weight_tensors
from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS, compare_outputs
from dlzoo.runtime.proof.limits import POWER_THRESHOLD, SEEN_CHANGE, VACUOUS_SHARE, Limits
from dlzoo.runtime.proof.report import Power

#: Multiply-adds to spend on tensors whose change is tried: 3 s of float32 on two cores.
_BUDGET_MULTIPLY_ADDS = 190e9
_MIN_TRIALS, _MAX_TRIALS = 8, 40
#: Where fewer of the tensors that reach an output have an effect on it, and the output is the same
#: at all inputs, no signal flows. A bias before a normalization has no effect, nor have a residual
#: branch behind a scale of zero or channels that were pruned: there the output varies.
_MIN_WITH_EFFECT = 0.5

#: Output -> tensor -> the smallest relative change that fails: NaN where it is unknown.
_Changes = dict[str, dict[str, float]]


def measure_power(
    module: nn.Module,
    golden_sets: Sequence[GoldenSet],
    *,
    dtypes: Mapping[str, str],
    limits: Limits,
    seed: int,
    parameters: Sequence[str] | None = None,
    num_multiply_adds: int = 0,
) -> Power:
    """Find the smallest relative change of each weight tensor that would fail the comparison.

    To first order it is ``rho2 limit · N2 / effect``, per output, with N2 the noise floor and the
    effect as in :func:`~dlzoo.export.reference.sensitivity.measure_effects`. The first golden set
    of numbers is used, and further ones for tensors that it does not show. A tensor is seen if a
    change of at most ``SEEN_CHANGE`` fails. What the first order does not show, or where an operator
    has no derivative, is tried: the tensor is changed by that much. One in which even a gross change
    (about doubled, and 1 added) changes nothing has no effect on the outputs, and is left out.

    Args:
        module: in eval mode; it comes back as it was.
        golden_sets: of the proof.
        dtypes: output name -> the numpy dtype name that the model declares.
        limits: of the verdict.
        seed: draws the vectors, the signs and the sample.
        parameters: names of the tensors that reach an output of the graph; None for all.
        num_multiply_adds: what one sample costs, which decides how many tensors are tried.
    """
    tensors = weight_tensors(module)
    if parameters is not None:
        known = set(parameters)
        tensors = {name: t for name, t in tensors.items() if name in known}
    finite = [golden for golden in golden_sets if golden.is_finite]
    if not tensors or not finite:
        return Power(detected=0, tried=0, sampled_of=0)
    names = list(finite[0].reference)
    changes: _Changes = {}
    for golden in finite:
        open_outputs = [name for name in names if _may_show(golden, name, dtypes)]
        if changes and not any(_unseen(changes.get(name, {})) for name in open_outputs):
            continue
        inputs = {key: torch.from_numpy(x) for key, x in golden.inputs.items()}
        effects = measure_effects(module, inputs, output_names=names, seed=seed)
        for output in open_outputs:
            found = changes.setdefault(output, {})
            noise = _floor(golden.noise[output])
            for name, effect in effects.get(output, {}).items():
                if name in tensors:
                    change = limits.rho2 * noise / effect if effect else math.inf
                    found[name] = min(found.get(name, math.inf), change, key=_or_inf)
    reached = {name for found in changes.values() for name in found}
    for name in tensors:
        if name not in reached:  # behind an operator without a derivative, if at all
            for output in names:
                changes.setdefault(output, {})[name] = math.nan
    trial = _Trial(module, tensors, finite, dtypes, limits, seed)
    untried = trial.judge(changes, _num_trials(num_multiply_adds))
    constant = {name for name in names if not _varies(finite, name, limits)}
    return _summary(tensors, changes, trial.without_effect, untried, constant)


def _varies(golden_sets: Sequence[GoldenSet], output: str, limits: Limits) -> bool:
    """Whether an output differs between two inputs by more than its noise.

    True where no two answers are of one shape, so that nothing can be compared.
    """
    first: dict[tuple[int, ...], tuple[npt.NDArray[np.float64], float]] = {}
    is_compared = False
    for golden in golden_sets:
        y, noise = golden.reference[output], golden.noise[output].max
        has_samples = y.ndim > 0 and len(y) == golden.batch
        for sample in y if has_samples else [y]:
            if sample.shape not in first:
                first[sample.shape] = (sample, noise)
                continue
            is_compared = True
            other, other_noise = first[sample.shape]
            is_same = (sample == other) | (np.isnan(sample) & np.isnan(other))
            difference = np.abs(np.where(is_same, 0.0, sample) - np.where(is_same, 0.0, other))
            if not bool((difference <= limits.rhomax * max(noise, other_noise)).all()):
                return True
    return not is_compared


def _may_show(golden: GoldenSet, output: str, dtypes: Mapping[str, str]) -> bool:
    share = golden.noise[output].share_of_signal
    is_float = np.dtype(dtypes[output]).kind == "f"
    return is_float and (share is None or share <= VACUOUS_SHARE)


def _floor(noise: NoiseFloor) -> float:
    return max(noise.rms, UNIT_ROUNDOFFS["float32"] * (noise.signal_rms or 0.0))


def _or_inf(change: float) -> float:
    return math.inf if math.isnan(change) else change


def _unseen(changes: Mapping[str, float]) -> list[str]:
    return [name for name, change in changes.items() if not change <= SEEN_CHANGE]


def _num_trials(num_multiply_adds: int) -> int:
    """How many tensors to try; it depends on the network alone, so every machine does the same.

    >>> _num_trials(15_470_264_320), _num_trials(416_520)
    (12, 40)
    """
    affordable = int(_BUDGET_MULTIPLY_ADDS // max(1, num_multiply_adds))
    return max(_MIN_TRIALS, min(_MAX_TRIALS, affordable))


class _Trial:
    """Changes tensors for real, one at a time, and looks whether the comparison fails."""

    def __init__(
        self,
        module: nn.Module,
        tensors: Mapping[str, Tensor],
        golden_sets: Sequence[GoldenSet],
        dtypes: Mapping[str, str],
        limits: Limits,
        seed: int,
    ) -> None:
        self.without_effect: set[tuple[str, str]] = set()
        self._module = module
        self._tensors = tensors
        self._golden_sets = golden_sets
        self._dtypes = dtypes
        self._limits = limits
        self._seed = seed

    def judge(self, changes: _Changes, max_trials: int) -> set[str]:
        """Settle what is not known to be seen; the names of tensors that were not tried."""
        unseen = [
            name
            for name in self._tensors
            if any(
                name in found and not found[name] <= SEEN_CHANGE for found in changes.values()
            )
        ]
        chosen = spread_sample(unseen, max_trials, self._seed)
        for name in chosen:
            open_outputs = {
                output
                for output, found in changes.items()
                if name in found and not found[name] <= SEEN_CHANGE
            }
            small = self._noticed(name, open_outputs, is_gross=False)
            for output in small:
                changes[output][name] = SEEN_CHANGE
            left = open_outputs - small
            gross = self._noticed(name, left, is_gross=True)
            self.without_effect |= {(output, name) for output in left - gross}
            for output in left:
                changes[output][name] = math.inf
        return set(unseen) - set(chosen)

    def _noticed(self, name: str, outputs: set[str], *, is_gross: bool) -> set[str]:
        """Those of the outputs at which a changed tensor fails the comparison, in any set."""
        tensor = self._tensors[name].detach()
        noticed: set[str] = set()
        for golden in self._golden_sets:
            if noticed >= outputs:
                break
            generator = torch.Generator().manual_seed(self._seed)
            inputs = {key: torch.from_numpy(x) for key, x in golden.inputs.items()}
            with _changed(tensor, generator, is_gross=is_gross):
                given = run_in_float32(self._module, inputs, list(golden.reference))
            comparison = compare_outputs(
                given,
                golden,
                dtypes=self._dtypes,
                unit_roundoff=UNIT_ROUNDOFFS["float32"],
                limits=self._limits,
            )
            noticed |= {d.name for d in comparison.differences if not d} & outputs
        return noticed


@contextmanager
def _changed(tensor: Tensor, generator: torch.Generator, *, is_gross: bool) -> Iterator[None]:
    values = tensor.clone()
    try:
        if is_gross:
            # Not by the same amount everywhere: argmax and normalizations would not notice.
            share = torch.empty(tensor.shape).uniform_(0.5, 1.5, generator=generator)
            tensor.addcmul_(share.to(values), values + 1)
        else:
            signs = torch.randint(0, 2, tensor.shape, generator=generator).mul_(2).sub_(1)
            is_nearly_zero = bool(values.abs().amax() < NEARLY_ZERO)
            scale = 1.0 if is_nearly_zero else values
            tensor.add_(signs.to(values) * scale * SEEN_CHANGE)
        yield
    finally:
        tensor.copy_(values)


def spread_sample(names: Sequence[str], max_names: int, seed: int) -> list[str]:
    """Draw one name from each of equal stretches, the first and last among them.

    A fixed step could hit only biases.
    """
    if max_names >= len(names):
        return list(names)
    if max_names < 2:
        return list(names[:max_names])
    generator = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, len(names)]))
    )
    edges = np.linspace(1, len(names) - 1, max_names - 1).astype(int)
    middle = [int(generator.integers(a, b)) for a, b in pairwise(edges)]
    return [names[i] for i in (0, *middle, len(names) - 1)]


def _summary(
    tensors: Mapping[str, Tensor],
    changes: _Changes,
    without_effect: set[tuple[str, str]],
    untried: set[str],
    constant_outputs: set[str],
) -> Power:
    best: dict[str, float] = {}
    blind = []
    for output, found in changes.items():
        judged = {
            name: change
            for name, change in found.items()
            if name not in untried and (output, name) not in without_effect
        }
        num_seen = sum(change <= SEEN_CHANGE for change in judged.values())
        num_tried = len(set(found) - untried)
        is_dead = output in constant_outputs and len(judged) < _MIN_WITH_EFFECT * num_tried
        if num_tried and (is_dead or num_seen < POWER_THRESHOLD * len(judged)):
            blind.append(output)
        for name, change in judged.items():
            best[name] = min(best.get(name, math.inf), change)
    seen = {name: change for name, change in best.items() if change <= SEEN_CHANGE}
    return Power(
        detected=len(seen),
        tried=len(best),
        sampled_of=len(tensors),
        missed=tuple(name for name in tensors if name in best and name not in seen),
        without_effect=tuple(
            name for name in tensors if name not in best and name not in untried
        ),
        smallest_changes={name: float(f"{change:.3g}") for name, change in seen.items()},
        blind_outputs=tuple(blind),
    )
