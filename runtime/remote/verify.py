"""Proof over the wire: send golden data to a running server, and judge its answers.

Only the answers that a client receives are judged, by the same rules as a local run. The server's
latency is measured too, but does not affect the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.proof.progress import SILENT, Progress
from dlzoo.runtime.proof.report import CandidateResult, Report, Verdict, judge
from dlzoo.runtime.proof.stage_clock import StageClock
from dlzoo.runtime.proof.validate import judge_outputs
from dlzoo.runtime.remote.expectation import Expectation
from dlzoo.runtime.remote.images import ImageAgreement
from dlzoo.runtime.remote.model import RefusedError, RemoteFacts, RemoteModel, RemoteTensor
from dlzoo.runtime.remote.tensors import datatype_named

#: The most requests to time, and for how long: the p99 of fewer says little.
_NUM_TIMED, _MAX_TIMED_S = 200, 5.0
#: Reported in place of the optimization level of a local run.
_ON_SERVER = "on the server"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Time of a whole request, as the client sees it, sent one at a time."""

    num_requests: int
    batch: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class RemoteReport:
    """The verdict on a server's model; true if the golden data and all images pass."""

    report: Report
    url: str
    model: str
    facts: RemoteFacts
    latency: Latency | None
    images: tuple[ImageAgreement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.report) and all(self.images)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the golden data; ``fail`` if those pass and an image gets another class."""
        return self.report.verdict if self or not self.report else "fail"

    @property
    def explanation(self) -> str:
        """The reasons of a failure, in one line; empty if it passes."""
        reasons = [agreement.reason for agreement in self.images if not agreement]
        return " ".join(text for text in (self.report.explanation, *reasons) if text)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values: the fields of a local report, and the server's."""
        latency = self.latency
        return {
            **self.report.to_json(),
            "verdict": self.verdict,
            "server": {
                "url": self.url,
                "server": self.facts.server,
                "model": self.model,
                "platform": self.facts.platform,
                "versions": list(self.facts.versions),
            },
            "latency": None
            if latency is None
            else {
                "num_requests": latency.num_requests,
                "batch": latency.batch,
                "p50_ms": latency.p50_ms,
                "p99_ms": latency.p99_ms,
            },
            "images": [agreement.to_json() for agreement in self.images],
        }


def verify_remote(
    remote: RemoteModel,
    expected: Expectation,
    *,
    progress: Progress = SILENT,
) -> RemoteReport:
    """Send all golden data to a server, judge its answers, and time it.

    Raises:
        ServerError: the server is unreachable, lacks the model, or speaks another protocol.
    """
    clock = StageClock(progress)
    clock("server", remote.url)
    facts = remote.facts()
    problems = [*expected.problems, *signature_problems(facts, expected)]
    results = []
    if not problems:
        for golden in expected.golden_sets:
            clock("run", f"{remote.protocol}, batch {golden.batch}, {golden.kind}")
            results.append(_run_one(remote, golden, expected))
    latency = None
    if results and all(result.verdict == "pass" for result in results):
        clock("latency")
        latency = _measured_latency(remote, expected)
    verdict, reasons = judge(
        results, expected.power, power_required=expected.power_required, problems=problems
    )
    report = Report(
        verdict=verdict,
        bundle=expected.name,
        opset=expected.opset,
        candidates=tuple(results),
        power=expected.power,
        dynamic_axes=dict(expected.dynamic_axes),
        seconds=clock.stop(),
        reasons=reasons,
        notes=expected.notes,
    )
    return RemoteReport(
        report=report, url=remote.url, model=remote.model, facts=facts, latency=latency
    )


def report_images(
    remote: RemoteModel,
    facts: RemoteFacts,
    expected: Expectation,
    images: tuple[ImageAgreement, ...],
) -> RemoteReport:
    """Judge a model that takes image files, to which no golden data can be sent."""
    passes = bool(images) and all(images)
    report = Report(
        verdict="pass" if passes else "fail",
        bundle=expected.name,
        opset=expected.opset,
        candidates=(),
        power=None,
        dynamic_axes={},
        notes=("the model takes image files, so no golden data were sent to it",),
    )
    return RemoteReport(
        report=report,
        url=remote.url,
        model=remote.model,
        facts=facts,
        latency=None,
        images=images,
    )


def signature_problems(facts: RemoteFacts, expected: Expectation) -> list[str]:
    """Find where a server declares other inputs or outputs than the model has."""
    problems = []
    for role, declared, specs in (
        ("input", facts.inputs, expected.inputs),
        ("output", facts.outputs, expected.outputs),
    ):
        if specs is None:
            continue
        by_name = {tensor.name: tensor for tensor in declared}
        wanted = {spec.name: spec for spec in specs}
        if set(by_name) != set(wanted):
            problems.append(
                f"the server's {role}s are {sorted(by_name)}, the model has {sorted(wanted)}"
            )
            continue
        for name, spec in wanted.items():
            if not _fits(by_name[name], spec):
                problems.append(
                    f"the server's {role} is {by_name[name]}, the model has {spec}"
                )
    return problems


def _fits(tensor: RemoteTensor, spec: TensorSpec) -> bool:
    return (
        tensor.datatype == datatype_named(spec.dtype)
        and len(tensor.shape) == len(spec.dims)
        and all(
            size == -1 or isinstance(dim, str) or size == dim
            for size, dim in zip(tensor.shape, spec.dims, strict=True)
        )
    )


def _run_one(remote: RemoteModel, golden: GoldenSet, expected: Expectation) -> CandidateResult:
    unanswered = CandidateResult(
        provider=remote.protocol,
        optimization=_ON_SERVER,
        batch=golden.batch,
        golden=golden.name,
        kind=golden.kind,
        verdict="fail",
        rho2=None,
        rhomax=None,
    )
    try:
        answers = remote.infer(golden.inputs, list(golden.reference))
    except RefusedError as error:
        if not golden.is_finite:  # JSON has no NaN; such inputs decide nothing
            return replace(unanswered, verdict="pass", notes=(f"not answered: {error}",))
        return replace(unanswered, reasons=(str(error),))
    comparison = judge_outputs(
        answers,
        golden,
        dtypes=expected.dtypes,
        unit_roundoff=expected.unit_roundoff,
        limits=expected.limits,
        strict_special_values=False,
    )
    return replace(
        unanswered,
        verdict="pass" if comparison else "fail",
        rho2=comparison.rho2,
        rhomax=comparison.rhomax,
        reasons=comparison.all_reasons,
        notes=comparison.notes,
        worst=comparison.worst,
    )


def _measured_latency(remote: RemoteModel, expected: Expectation) -> Latency | None:
    """Time requests with the smallest golden set, one after the other."""
    golden = min(expected.golden_sets, key=lambda golden: golden.batch)
    outputs: Sequence[str] = list(golden.reference)
    times_ms: list[float] = []
    end = time.perf_counter() + _MAX_TIMED_S
    while len(times_ms) < _NUM_TIMED and (not times_ms or time.perf_counter() < end):
        start = time.perf_counter()
        try:
            remote.infer(golden.inputs, outputs)
        except RefusedError:  # as a server under load may; the times until then count
            break
        times_ms.append(1000 * (time.perf_counter() - start))
    if not times_ms:
        return None
    p50, p99 = np.percentile(times_ms, [50, 99])
    return Latency(
        num_requests=len(times_ms), batch=golden.batch, p50_ms=float(p50), p99_ms=float(p99)
    )
