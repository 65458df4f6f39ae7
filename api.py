"""The Python API beside the main job: ``dlzoo.export_model`` and ``dlzoo.verify``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo.errors import ArgumentError
from dlzoo.runtime.proof.limits import RHO2_LIMIT, RHOMAX_LIMIT

if TYPE_CHECKING:
    from torch import nn

    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.proof.recorded import Tolerance
    from dlzoo.runtime.proof.report import Report

OnText = Callable[[str], None]


def export_model(
    model: str | nn.Module, output: str | Path | None = None, **arguments: Any
) -> Bundle:
    """Export a model to ONNX, prove it against PyTorch, and write a bundle.

    The arguments are those of :func:`dlzoo.export.prove.proof.export_and_report`.

    >>> import dlzoo
    >>> bundle = dlzoo.export_model("lenet5_relu", "lenet5_relu")  # doctest: +SKIP
    >>> bundle.manifest.opset  # doctest: +SKIP
    20
    """
    from dlzoo.export.prove.proof import export_and_report

    bundle, _ = export_and_report(model, output, **arguments)
    return bundle


def verify(
    bundle: Bundle | str | Path,
    *,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = ("all",),
    golden: str | Path | None = None,
    tolerance: Tolerance | None = None,
    against: str | nn.Module | None = None,
    weights: str = "auto",
    seed: int = 0,
    allow_fallback: bool = False,
    native_library: str | Path = "auto",
    on_stage: OnText | None = None,
) -> Report:
    """Replay what a bundle proves, or compare any ``.onnx`` file with recorded outputs.

    Needs onnxruntime and numpy; PyTorch only with ``against``.

    Args:
        bundle: a bundle or its folder; an ``.onnx`` file together with ``golden``.
        providers: run on each of these.
        optimizations: ONNX Runtime's graph optimization levels.
        golden: a folder of ``input_N.pb`` and ``output_N.pb``, for an ``.onnx`` file.
        tolerance: the bound for recorded outputs, in place of an estimated noise floor.
        against: compare with this model in PyTorch, on inputs that the bundle has not seen.
        weights: of ``against``, as for :func:`dlzoo.build_model`.
        seed: of ``against``: draws random weights and the inputs.
        allow_fallback: let nodes run on another provider than the one asked for.
        native_library: kernels for operators of domain ``dlzoo``: the file, ``off``, or ``auto`` for
            ``DLZOO_NATIVE_LIBRARY`` or else the one built beside the package.
        on_stage: is told what runs now.

    Raises:
        BundleError: a file is missing, changed or damaged.
        ProviderError: a provider is missing or did not take the work.
        NativeLibraryError: the library of kernels cannot be used.
    """
    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.proof.validate import verify_bundle

    where: dict[str, Any] = {
        "providers": providers,
        "optimizations": optimizations,
        "allow_fallback": allow_fallback,
        "native_library": native_library,
        "on_stage": on_stage,
    }
    if not isinstance(bundle, Bundle):
        path = Path(bundle)
        if path.suffix == ".onnx" or golden is not None:
            if golden is None:
                raise ArgumentError(
                    f"{path} is a bare .onnx file, expected a bundle, or --golden with a folder "
                    "of input_0.pb and output_0.pb. Give --golden DIR."
                )
            return _verify_recorded(path, Path(golden), tolerance, **where)
        bundle = Bundle.open(path)
    elif golden is not None:
        raise ArgumentError(
            f"golden got {str(golden)!r} for a bundle, which brings its own golden data. "
            "Leave golden out."
        )
    if against is None:
        return verify_bundle(bundle, **where)
    return _verify_against(bundle, against, weights=weights, seed=seed, **where)


def _verify_recorded(
    path: Path, folder: Path, tolerance: Tolerance | None, **where: Any
) -> Report:
    """Compare an ``.onnx`` file with outputs that somebody recorded."""
    from dlzoo.runtime.proof.recorded import recorded_golden_sets
    from dlzoo.runtime.proof.validate import verify_model

    limits: dict[str, Any] = {"rho2_limit": RHO2_LIMIT, "rhomax_limit": RHOMAX_LIMIT}
    golden_sets, notes = recorded_golden_sets(
        path,
        folder,
        tolerance=tolerance,
        native_library=where["native_library"],
        on_stage=where["on_stage"],
        **limits,
    )
    return verify_model(path, golden_sets, notes=notes, **limits, **where)


def _verify_against(
    bundle: Bundle, against: str | nn.Module, *, weights: str, seed: int, **where: Any
) -> Report:
    """Compare with PyTorch's answers to inputs of the bundle's shapes that nobody has seen."""
    from dlzoo.export.diff.diff import explain_failure
    from dlzoo.export.plan.bundled_network import load_bundled_network
    from dlzoo.export.reference.fresh_golden_sets import fresh_golden_sets
    from dlzoo.runtime.proof.validate import verify_bundle
    from dlzoo.zoo.module_state import in_eval_mode

    module = load_bundled_network(bundle.manifest, against, weights=weights, seed=seed)
    with in_eval_mode(module, []):
        fresh = fresh_golden_sets(bundle.manifest, module, seed=seed)
        report = verify_bundle(bundle, golden_sets=fresh, **where)
        return report if report else explain_failure(report, bundle, module, fresh)
