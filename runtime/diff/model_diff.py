"""A graph against what counts as right: judged whole, then value by value, then attributed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.runtime.diff.attribution import Attribution, attribute
from dlzoo.runtime.diff.culprit import Culprit, Place, culprit_of
from dlzoo.runtime.diff.diff_base import Base
from dlzoo.runtime.diff.diff_report import DiffReport, Judgement
from dlzoo.runtime.diff.localization import Finding, Localizer
from dlzoo.runtime.diff.model_reference import Matching
from dlzoo.runtime.diff.value_checks import Reference, ValueCheck, compare_value
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.stage_clock import StageClock
from dlzoo.runtime.session.tapped_session import MAX_TAPPED_BYTES, Setting, TappedModel

Inputs = Mapping[str, npt.NDArray[Any]]


def compare_models(
    candidate: TappedModel,
    title: str,
    base: Base,
    input_sets: Sequence[tuple[str, Inputs]],
    *,
    limits: Limits,
    providers: Sequence[str],
    optimizations: Sequence[str],
    session_config: Mapping[str, str] | None,
    max_bytes: int | None,
    on_stage: Callable[[str], None] | None,
) -> DiffReport:
    """Judge the candidate on every provider and level; where it is wrong, find out where.

    The first set of inputs on which it is wrong is the one that is looked into. Where its outputs
    are right on all, its inner values are compared on the first set all the same: a fault can hide
    behind a pooling.

    Args:
        candidate: the graph to judge.
        title: what it is called.
        base: what counts as right.
        input_sets: finite inputs, each set with the name of its kind.
        limits: what a value passes with.
        providers: where it runs.
        optimizations: ONNX Runtime's levels.
        session_config: ONNX Runtime's session configuration entries.
        max_bytes: how much of all values is held at a time.
        on_stage: is told what is being done.

    Raises:
        ProviderError: a provider is missing or did not take the work.
    """
    clock = StageClock(on_stage)
    clock("trace")
    matching = base.match(candidate)
    judgements: list[Judgement] = []
    attribution: Attribution | None = None
    chosen = input_sets[0][1]
    for kind, inputs in input_sets:
        clock("judge", f"outputs, {kind}")
        judge = _Judge(candidate, base.reference(inputs, candidate), matching, inputs, limits)
        attribution = attribute(
            candidate,
            lambda setting, judge=judge: bool(judge(setting)),  # type: ignore[misc]
            providers,
            optimizations=optimizations,
            session_config=session_config,
        )
        judgements += [
            replace(judgement, kind=kind)
            for setting, judgement in judge.known.items()
            if not setting.disabled_passes
        ]
        if attribution is not None:
            chosen = inputs
            break

    clock("values")
    setting = Setting(provider=providers[0], session_config=session_config or {})
    localizer = Localizer(
        model=candidate,
        pairs=matching.pairs,
        reference=base.reference(chosen, candidate),
        inputs=chosen,
        limits=limits,
        setting=attribution.setting if attribution else setting,
        max_bytes=max_bytes or MAX_TAPPED_BYTES,
        twin=base.twin,
        on_stage=on_stage,
    )
    checks = list(localizer.checks())
    clock("localize")
    findings = _findings(localizer, checks, attribution, base)
    if findings and attribution is None:
        attribution = Attribution(
            fault="exporter",
            setting=setting,
            text="the graph itself, though its outputs are within the noise on these inputs",
        )
    places = {check.value: base.place(check.partner, check.node) for check in checks}
    return DiffReport(
        reference=base.title,
        candidate=title,
        judgements=tuple(judgements),
        checks=tuple(checks),
        places=places,
        num_values=len(candidate.values),
        matched_by=matching.by,
        culprits=tuple(_culprit(finding, base, candidate) for finding in findings),
        attribution=attribution,
        notes=_notes(checks, findings, candidate, matching),
        seconds=clock.stop(),
    )


def _findings(
    localizer: Localizer,
    checks: Sequence[ValueCheck],
    attribution: Attribution | None,
    base: Base,
) -> tuple[Finding, ...]:
    if attribution is not None and attribution.fault == "optimizer":
        found = localizer.find_in_fusions()
        return () if found is None else (found,)
    if attribution is not None:
        return localizer.find(checks)
    if not base.names_are_sure:
        return ()
    return tuple(f for f in localizer.find(checks) if f.kind != "sum" and not f.alone)


def _culprit(finding: Finding, base: Base, candidate: TappedModel) -> Culprit:
    check = finding.check
    details: tuple[str, ...] = ()
    if finding.kind == "node" and len(finding.nodes) == 1:
        details = base.details(finding.nodes[0], check.partner, candidate)
    return culprit_of(
        finding,
        base.place(check.partner, finding.nodes[-1] if finding.nodes else check.node),
        base.place(finding.expected, None) if finding.expected else Place(),
        details,
    )


def _notes(
    checks: Sequence[ValueCheck],
    findings: Sequence[Finding],
    candidate: TappedModel,
    matching: Matching,
) -> tuple[str, ...]:
    notes = []
    without = len(candidate.values) - len(checks)
    if without > 0:
        notes.append(f"{without} values have no partner and were not compared")
    wrong = sum(not check for check in checks)
    if wrong and not findings:
        notes.append(f"{wrong} inner values are beyond the limits, the outputs are not")
    return tuple(notes)


class _Judge:
    """Judges the untapped candidate's outputs in a setting, once for each."""

    def __init__(
        self,
        candidate: TappedModel,
        reference: Reference,
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
        self.known: dict[Setting, Judgement] = {}

    def __call__(self, setting: Setting) -> Judgement:
        if setting not in self.known:
            self.known[setting] = self._judge(setting)
        return self.known[setting]

    def _judge(self, setting: Setting) -> Judgement:
        facts: dict[str, Any] = {
            "provider": setting.provider,
            "optimization": setting.optimization,
            "kind": "",
        }
        try:
            outputs = self.candidate.run(self.inputs, [], setting)
        except (ArgumentError, BundleError) as error:
            # A graph that cannot do what the reference does is wrong, not the user.
            return Judgement(**facts, rho2=None, rhomax=None, reasons=(str(error),))
        reasons: list[str] = []
        rho2: list[float] = []
        rhomax: list[float] = []
        for name, partner in self.partners.items():
            if partner is None or partner not in self.expected:
                reasons.append(f"output {name!r} has no partner in the reference")
                continue
            found = compare_value(name, outputs[name], self.expected[partner], self.limits)
            reasons += [f"output {name!r} {reason}" for reason in found.reasons]
            rho2 += [found.rho2] if found.rho2 is not None else []
            rhomax += [found.rhomax] if found.rhomax is not None else []
        return Judgement(
            **facts,
            rho2=max(rho2, default=None),
            rhomax=max(rhomax, default=None),
            reasons=tuple(reasons),
        )
