"""Reference and candidates -> report: a model on every provider and optimization level asked for.

Needs onnxruntime and numpy, not torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError, ProviderError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.onnx_reader.onnx_header import OnnxHeader, read_onnx_header
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.proof.compare import (
    UNIT_ROUNDOFFS,
    Comparison,
    compare_outputs,
    compare_special_values,
)
from dlzoo.runtime.proof.declarations import axis_problems, declaration_problems, replayed_axes
from dlzoo.runtime.proof.limits import Limits
from dlzoo.runtime.proof.progress import SILENT, Progress
from dlzoo.runtime.proof.report import CandidateResult, Power, Report, judge, power_from_json
from dlzoo.runtime.proof.silent_sizes import silent_sizes
from dlzoo.runtime.proof.stage_clock import StageClock
from dlzoo.runtime.proof.tf32 import tf32_note
from dlzoo.runtime.session.custom_ops import (
    AUTO,
    carried_libraries,
    describe_kernels,
    kernel_choices,
)
from dlzoo.runtime.session.run_settings import RunSettings
from dlzoo.runtime.session.session import Session, open_with


def verify_bundle(
    bundle: Bundle,
    *,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = ("all",),
    allow_fallback: bool = False,
    native_library: str | Path = AUTO,
    strict_special_values: bool = False,
    golden_sets: Sequence[GoldenSet] | None = None,
    power: Power | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Replay what a bundle proves: its hashes, what it declares, and all of its golden data.

    Args:
        bundle: what to verify.
        providers: run on each of these.
        optimizations: at each of these levels.
        allow_fallback: let nodes run on another provider than the one asked for.
        native_library: kernels for operators of domain ``dlzoo``, as for ``open_session``. Where
            there are any, the model runs both with them and without.
        strict_special_values: let answers to NaN and infinities decide, too.
        golden_sets: other data than the bundle's own, computed in the same way.
        power: as measured just now; the one in parity.json if None.
        progress: called with the name of each stage.

    Raises:
        BundleError: a file is missing or changed, or the model cannot be opened.
        NativeLibraryError: the library of kernels cannot be used.
        ProviderError: a provider is missing or did not take the work.
    """
    manifest = bundle.manifest
    if manifest.precision not in UNIT_ROUNDOFFS:
        raise BundleError(
            f"{bundle.path} has precision {manifest.precision!r}, expected one of "
            f"{', '.join(UNIT_ROUNDOFFS)}. Export it again."
        )
    clock = StageClock(progress)
    clock("hashes")
    bundle.check_files()
    own = bundle.golden_sets()
    if power is None:
        power = power_from_json(bundle.parity().get("power"))
    header = bundle.header
    compared = own if golden_sets is None else golden_sets
    dtypes = {spec.name: spec.dtype for spec in manifest.outputs}
    limits = Limits.from_manifest(manifest)
    results = _run_candidates(
        bundle,
        compared,
        header=header,
        dtypes=dtypes,
        unit_roundoff=UNIT_ROUNDOFFS[manifest.precision],
        limits=limits,
        strict_special_values=strict_special_values,
        candidates=_candidates(
            header,
            providers,
            optimizations,
            allow_fallback=allow_fallback,
            native_library=native_library,
            bundle=bundle,
        ),
        clock=clock,
    )
    notes = [
        f"the bundle carries {name}, which is code: where you trust its source, "
        f"use it with `native_library={str(bundle.path / name)!r}`"
        for name in carried_libraries(bundle)
    ]
    if any(result.provider == "cuda" for result in results):
        clock("run", "cuda with TF32 on, for comparison")
        notes.append(
            tf32_note(
                bundle,
                compared,
                dtypes=dtypes,
                limits=limits,
                allow_fallback=allow_fallback,
            )
        )
    axes = replayed_axes(manifest.inputs, manifest.dynamic_axes, own)
    problems = [
        *declaration_problems(bundle, header),
        *axis_problems(manifest.dynamic_axes, axes),
    ]
    verdict, reasons = judge(
        results,
        power,
        power_required=True,
        problems=problems,
        silent_sizes=silent_sizes(compared, dtypes),
    )
    return Report(
        verdict=verdict,
        bundle=manifest.name,
        opset=header.opset,
        candidates=results,
        power=power,
        dynamic_axes=axes,
        seconds=clock.stop(),
        reasons=reasons,
        notes=tuple(notes),
    )


def verify_model(
    path: Path,
    golden_sets: Sequence[GoldenSet],
    *,
    limits: Limits,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = ("all",),
    allow_fallback: bool = False,
    native_library: str | Path = AUTO,
    strict_special_values: bool = False,
    power: Power | None = None,
    notes: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Report:
    """Compare any ``.onnx`` file with golden data; what it declares comes from its own header.

    Where no ``power`` is given, the report says that it was not measured, and is not vacuous for
    that: recorded outputs come without the model in which faults could be tried.

    Raises:
        BundleError: the file is damaged, unsafe or not understood.
        ProviderError: a provider is missing or did not take the work.
    """
    clock = StageClock(progress)
    clock("header")
    header = read_onnx_header(path)
    results = _run_candidates(
        path,
        golden_sets,
        header=header,
        dtypes={spec.name: spec.dtype for spec in header.outputs},
        unit_roundoff=coarsest_unit_roundoff(header.outputs),
        limits=limits,
        strict_special_values=strict_special_values,
        candidates=_candidates(
            header,
            providers,
            optimizations,
            allow_fallback=allow_fallback,
            native_library=native_library,
        ),
        clock=clock,
    )
    verdict, reasons = judge(results, power, power_required=False)
    unmeasured = () if power else ("power was not measured",)
    return Report(
        verdict=verdict,
        bundle=path.name,
        opset=header.opset,
        candidates=results,
        power=power,
        dynamic_axes={},
        seconds=clock.stop(),
        reasons=reasons,
        notes=(*notes, *unmeasured),
    )


def coarsest_unit_roundoff(outputs: Sequence[TensorSpec]) -> float:
    """The largest unit roundoff of the outputs' dtypes; that of float32 where none is a float."""
    known = [UNIT_ROUNDOFFS[spec.dtype] for spec in outputs if spec.dtype in UNIT_ROUNDOFFS]
    return max(known, default=UNIT_ROUNDOFFS["float32"])


def _candidates(
    header: OnnxHeader,
    providers: Sequence[str],
    optimizations: Sequence[str],
    *,
    allow_fallback: bool,
    native_library: str | Path,
    bundle: Bundle | None = None,
) -> list[RunSettings]:
    """One for each provider, its kernels, and level."""
    return [
        RunSettings(
            provider=provider,
            optimization=optimization,
            allow_fallback=allow_fallback,
            native_library=library,
        )
        for provider in dict.fromkeys(providers)
        for library in kernel_choices(header, provider, native_library, bundle=bundle)
        for optimization in dict.fromkeys(optimizations)
    ]


def _run_candidates(
    model: Bundle | Path,
    golden_sets: Sequence[GoldenSet],
    *,
    header: OnnxHeader,
    dtypes: Mapping[str, str],
    unit_roundoff: float,
    limits: Limits,
    strict_special_values: bool,
    candidates: Iterable[RunSettings],
    clock: StageClock,
) -> tuple[CandidateResult, ...]:
    """Every golden set through one session for each candidate."""
    results = []
    for settings in candidates:
        clock("open", str(settings))
        session = open_with(model, settings)
        for golden in golden_sets:
            clock("run", f"{settings}, batch {golden.batch}, {golden.kind}")
            results.append(
                _run_one(
                    session,
                    golden,
                    dtypes=dtypes,
                    unit_roundoff=unit_roundoff,
                    limits=limits,
                    strict_special_values=strict_special_values,
                )
            )
        del session  # or it would hold its weights while the next one loads them
    return tuple(results)


def _run_one(
    session: Session,
    golden: GoldenSet,
    *,
    dtypes: Mapping[str, str],
    unit_roundoff: float,
    limits: Limits,
    strict_special_values: bool,
) -> CandidateResult:
    try:
        outputs = session.run(golden.inputs)
    except (ArgumentError, BundleError, ProviderError) as error:
        # A model that cannot do what its golden data ask of it is wrong, not the user.
        comparison = Comparison(differences=(), reasons=(str(error),))
    else:
        comparison = judge_outputs(
            outputs,
            golden,
            dtypes=dtypes,
            unit_roundoff=unit_roundoff,
            limits=limits,
            strict_special_values=strict_special_values,
        )
    return CandidateResult(
        provider=session.provider,
        optimization=session.optimization,
        batch=golden.batch,
        golden=golden.name,
        kind=golden.kind,
        kernels=describe_kernels(session.custom_ops),
        verdict="pass" if comparison else "fail",
        rho2=comparison.rho2,
        rhomax=comparison.rhomax,
        reasons=comparison.all_reasons,
        notes=comparison.notes,
        worst=comparison.worst,
    )


def judge_outputs(
    outputs: Mapping[str, npt.NDArray[Any]],
    golden: GoldenSet,
    *,
    dtypes: Mapping[str, str],
    unit_roundoff: float,
    limits: Limits,
    strict_special_values: bool,
) -> Comparison:
    """Compare outputs with a golden set by the rule for its inputs.

    Inputs with NaN or infinities decide nothing unless ``strict_special_values`` is set: runtimes
    differ there, and people's inputs are numbers. A difference is a note of the comparison.
    """
    if golden.is_finite:
        return compare_outputs(
            outputs, golden, dtypes=dtypes, unit_roundoff=unit_roundoff, limits=limits
        )
    comparison = compare_special_values(outputs, golden, dtypes=dtypes)
    if strict_special_values or comparison.reasons:
        return comparison
    return replace(
        comparison,
        differences=tuple(
            replace(d, reasons=(), notes=(*d.notes, *d.reasons))
            for d in comparison.differences
        ),
    )
