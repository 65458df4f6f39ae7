"""Compare a graph with its reference: its outputs, then every value, then who is to blame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.runtime.diff.attribution import Attribution, attribute
from dlzoo.runtime.diff.culprit import Culprit, Place, culprit_of
from dlzoo.runtime.diff.diff_report import DiffReport, Judgement
from dlzoo.runtime.diff.graph_values import Matching
from dlzoo.runtime.diff.localization import Localizer, Suspect
from dlzoo.runtime.diff.reference import Reference
from dlzoo.runtime.diff.value_checks import ReferenceValues, ValueCheck, compare_value
from dlzoo.runtime.proof.difference import Difference
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.progress import Progress
from dlzoo.runtime.proof.stage_clock import StageClock
from dlzoo.runtime.session.run_settings import RunSettings
from dlzoo.runtime.session.tapped_session import MAX_TAPPED_BYTES, TappedModel

Inputs = Mapping[str, npt.NDArray[Any]]


def compare_models(
    candidate: TappedModel,
    title: str,
    reference: Reference,
    input_sets: Sequence[tuple[str, Inputs]],
    *,
    limits: Limits,
    providers: Sequence[str],
    optimizations: Sequence[str],
    session_config: Mapping[str, str] | None,
    max_bytes: int | None,
    progress: Progress,
) -> DiffReport:
    """Judge the candidate on every provider and level; where it is wrong, find out where.

    The first set of inputs on which it is wrong is the one that is looked into. Where its outputs
    are right on all, its inner values are compared on the first set all the same: an error can hide
    behind a pooling.

    Args:
        candidate: the graph to judge.
        title: what it is called.
        reference: what it is compared with.
        input_sets: finite inputs, each set with the name of its kind.
        limits: what a value passes with.
        providers: where it runs.
        optimizations: ONNX Runtime's levels.
        session_config: ONNX Runtime's session configuration entries.
        max_bytes: how much of all values is held at a time.
        progress: called with the name of each stage.

    Raises:
        ProviderError: a provider is missing or did not take the work.
    """
    clock = StageClock(progress)
    clock("trace")
    matching = reference.match(candidate)
    judgements: list[Judgement] = []
    attribution: Attribution | None = None
    chosen = input_sets[0][1]
    for kind, inputs in input_sets:
        clock("judge", f"outputs, {kind}")
        judge = _Judge(
            candidate, reference.values_on(inputs, candidate), matching, inputs, limits
        )
        attribution = attribute(
            candidate,
            lambda settings, judge=judge: bool(judge(settings)),  # type: ignore[misc]
            providers,
            optimizations=optimizations,
            session_config=session_config,
        )
        judgements += [
            replace(judgement, kind=kind)
            for settings, judgement in judge.known.items()
            if not settings.disabled_passes
        ]
        if attribution is not None:
            chosen = inputs
            break

    clock("values")
    settings = RunSettings(
        provider=providers[0], optimization="disabled", session_config=session_config or {}
    )
    localizer = Localizer(
        model=candidate,
        pairs=matching.pairs,
        reference=reference.values_on(chosen, candidate),
        inputs=chosen,
        limits=limits,
        settings=attribution.settings if attribution else settings,
        max_bytes=max_bytes or MAX_TAPPED_BYTES,
        twin=reference.twin,
        progress=progress,
    )
    checks = list(localizer.checks())
    clock("localize")
    suspects = _suspects(localizer, checks, attribution, reference)
    if suspects and attribution is None:
        attribution = Attribution(
            origin="exporter",
            settings=settings,
            text="the graph itself, though its outputs are within the noise on these inputs",
        )
    places = {check.value: reference.place(check.partner, check.node) for check in checks}
    return DiffReport(
        reference=reference.title,
        candidate=title,
        judgements=tuple(judgements),
        checks=tuple(checks),
        places=places,
        num_values=len(candidate.values),
        matched_by=matching.by,
        culprits=tuple(_culprit(suspect, reference, candidate) for suspect in suspects),
        attribution=attribution,
        notes=_notes(checks, suspects, candidate, matching),
        seconds=clock.stop(),
    )


def _suspects(
    localizer: Localizer,
    checks: Sequence[ValueCheck],
    attribution: Attribution | None,
    reference: Reference,
) -> tuple[Suspect, ...]:
    if attribution is not None and attribution.origin == "optimizer":
        found = localizer.find_in_fusions()
        return () if found is None else (found,)
    if attribution is not None:
        return localizer.find(checks)
    if not reference.names_are_sure:
        return ()
    return tuple(f for f in localizer.find(checks) if f.kind != "sum" and not f.alone)


def _culprit(suspect: Suspect, reference: Reference, candidate: TappedModel) -> Culprit:
    check = suspect.check
    details: tuple[str, ...] = ()
    if suspect.kind == "node" and len(suspect.nodes) == 1:
        details = reference.details(suspect.nodes[0], check.partner, candidate)
    return culprit_of(
        suspect,
        reference.place(check.partner, suspect.nodes[-1] if suspect.nodes else check.node),
        reference.place(suspect.expected, None) if suspect.expected else Place(),
        details,
    )


def _notes(
    checks: Sequence[ValueCheck],
    suspects: Sequence[Suspect],
    candidate: TappedModel,
    matching: Matching,
) -> tuple[str, ...]:
    notes = []
    without = len(candidate.values) - len(checks)
    if without > 0:
        notes.append(f"{without} values have no partner and were not compared")
    wrong = sum(not check for check in checks)
    if wrong and not suspects:
        notes.append(f"{wrong} inner values are beyond the limits, the outputs are not")
    return tuple(notes)


class _Judge:
    """Judges the untapped candidate's outputs, once for each choice of settings."""

    def __init__(
        self,
        candidate: TappedModel,
        reference: ReferenceValues,
        matching: Matching,
        inputs: Inputs,
        limits: Limits,
    ) -> None:
        self.candidate = candidate
        self.inputs = inputs
        self.limits = limits
        self.partners = {name: matching.pairs.get(name) for name in candidate.graph.outputs}
        known = [name for name in self.partners.values() if name is not None]
        self.expected = reference.values(known)
        self.known: dict[RunSettings, Judgement] = {}

    def __call__(self, settings: RunSettings) -> Judgement:
        if settings not in self.known:
            self.known[settings] = self._judge(settings)
        return self.known[settings]

    def _judge(self, settings: RunSettings) -> Judgement:
        try:
            outputs = self.candidate.run(self.inputs, [], settings)
        except (ArgumentError, BundleError) as error:
            # A graph that cannot do what the reference does is wrong, not the user.
            return _judgement(settings, [], [str(error)])
        differences: list[Difference] = []
        reasons: list[str] = []
        for name, partner in self.partners.items():
            if partner is None or partner not in self.expected:
                reasons.append(f"output {name!r} has no partner in the reference")
                continue
            found = compare_value(name, outputs[name], self.expected[partner], self.limits)
            differences.append(found)
            reasons += [f"output {name!r} {reason}" for reason in found.reasons]
        return _judgement(settings, differences, reasons)


def _judgement(
    settings: RunSettings, differences: Sequence[Difference], reasons: Sequence[str]
) -> Judgement:
    """The worst of the outputs' differences; the kind of the inputs is filled in later."""
    return Judgement(
        provider=settings.provider,
        optimization=settings.optimization,
        kind="",
        rho2=max((d.rho2 for d in differences if d.rho2 is not None), default=None),
        rhomax=max((d.rhomax for d in differences if d.rhomax is not None), default=None),
        reasons=tuple(reasons),
    )
