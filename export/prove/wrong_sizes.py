"""Find out whether a graph is wrong because of the size of its inputs: right at some, wrong at others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from torch import nn

from dlzoo.errors import ExportError
from dlzoo.export.diff.diff import first_wrong_layer
from dlzoo.export.reference.golden_inputs import golden_inputs
from dlzoo.export.reference.reference import compute_golden_set
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.diff.culprit import Culprit
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.report import CandidateResult, Report
from dlzoo.runtime.proof.validate import verify_bundle

_BATCH = "batch"

#: The size of each open axis, in the order of the manifest's symbols.
_Sizes = tuple[int, ...]


@dataclass(frozen=True)
class WrongSizes:
    """Sizes at which a graph is wrong, while it is right at others on inputs of the same kind.

    Attributes:
        symbols: of the axes to which it is due.
        wrong: the sizes of those axes at which the graph is wrong.
        right: those at which it is right.
        reason: what is wrong at the first of ``wrong``.
        inputs: finite inputs of that size.
        provider: where it ran.
    """

    symbols: tuple[str, ...]
    wrong: tuple[_Sizes, ...]
    right: tuple[_Sizes, ...]
    reason: str
    inputs: Mapping[str, npt.NDArray[Any]]
    provider: str

    @property
    def is_batch(self) -> bool:
        """Whether it is due to the number of samples alone."""
        return self.symbols == (_BATCH,)

    def __str__(self) -> str:
        name = "batch " if self.is_batch else ""
        return (
            f"the exported graph is wrong at {name}{_listed(self.wrong)} and right at "
            f"{_listed(self.right)} ({self.reason})"
        )


def find_wrong_sizes(
    report: Report, bundle: Bundle, module: nn.Module, *, seed: int
) -> WrongSizes | None:
    """Run the graph on inputs of one kind at every size of the proof, where some of its runs fail.

    The sets of the proof differ in kind and in size together, so that a failed one does not say
    which of the two did it.

    Args:
        report: of the bundle.
        bundle: with its golden data.
        module: what it was exported from, with head and preprocessing.
        seed: draws the inputs.

    Returns:
        None where the graph is wrong at every size or at none.
    """
    manifest = bundle.manifest
    symbols = tuple(manifest.dynamic_axes)
    golden_sets = {golden.name: golden for golden in bundle.golden_sets() if golden.is_finite}
    failed = next(
        (r for r in report.candidates if r.verdict == "fail" and r.golden in golden_sets), None
    )
    if failed is None or not symbols:
        return None
    sets: dict[_Sizes, GoldenSet] = {}
    for golden in golden_sets.values():
        known = {
            dim: size
            for spec in manifest.inputs
            for dim, size in zip(spec.dims, golden.inputs[spec.name].shape, strict=True)
            if isinstance(dim, str)
        }
        sizes = tuple(known[symbol] for symbol in symbols)
        if sizes not in sets:
            sets[sizes] = _drawn(bundle, module, dict(zip(symbols, sizes, strict=True)), seed)
    if len(sets) < 2:
        return None
    again = verify_bundle(
        bundle,
        providers=(failed.provider,),
        optimizations=(failed.optimization,),
        golden_sets=list(sets.values()),
        power=report.power,
    )
    failures = {r.golden: r for r in again.candidates if r.verdict == "fail"}
    return _told_apart(symbols, sets, failures)


def find_culprit(wrong: WrongSizes, bundle: Bundle, module: nn.Module) -> Culprit | None:
    """The first layer that the graph gets wrong at the first of the wrong sizes, if one is found."""
    manifest = bundle.manifest
    try:
        return first_wrong_layer(
            module,
            bundle.model_path,
            dict(wrong.inputs),
            limits=Limits.from_manifest(manifest),
            providers=[wrong.provider],
            target=manifest.target,
            lowerings=manifest.asked_lowerings,
        )
    except ExportError:
        return None  # traced at this size, the network may not export at all


def _drawn(
    bundle: Bundle, module: nn.Module, sizes: Mapping[str, int], seed: int
) -> GoldenSet:
    manifest = bundle.manifest
    kind, inputs = golden_inputs(
        manifest.inputs,
        sizes={symbol: (size,) for symbol, size in sizes.items()},
        seed=seed,
        integer_ranges=manifest.integer_ranges,
    )[0]
    return compute_golden_set(
        "_".join(str(size) for size in sizes.values()),
        kind,
        module,
        inputs,
        output_names=[spec.name for spec in manifest.outputs],
    )


def _told_apart(
    symbols: Sequence[str],
    sets: Mapping[_Sizes, GoldenSet],
    failures: Mapping[str, CandidateResult],
) -> WrongSizes | None:
    """The axes in which every wrong size differs from every right one."""
    wrong = [sizes for sizes, golden in sets.items() if golden.name in failures]
    right = [sizes for sizes, golden in sets.items() if golden.name not in failures]
    if not wrong or not right:
        return None
    batch = tuple(symbol for symbol in symbols if symbol == _BATCH)
    image = tuple(symbol for symbol in symbols if symbol != _BATCH)
    first = sets[wrong[0]]
    result = failures[first.name]
    for group in (batch, image, tuple(symbols)):
        places = [symbols.index(symbol) for symbol in group]
        of_wrong = _only(wrong, places)
        of_right = _only(right, places)
        if places and not set(of_wrong) & set(of_right):
            return WrongSizes(
                symbols=group,
                wrong=of_wrong,
                right=of_right,
                reason=result.reasons[0].rstrip("."),
                inputs=first.inputs,
                provider=result.provider,
            )
    return None


def _only(sizes: Sequence[_Sizes], places: Sequence[int]) -> tuple[_Sizes, ...]:
    return tuple(sorted({tuple(size[place] for place in places) for size in sizes}))


def _listed(sizes: Sequence[_Sizes]) -> str:
    texts = ["x".join(map(str, size)) for size in sizes]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
