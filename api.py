"""The Python API beside the main job: ``dlzoo.export_model`` and ``dlzoo.verify``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlzoo.errors import ArgumentError
from dlzoo.runtime.proof.progress import SILENT, Progress

if TYPE_CHECKING:
    from torch import nn

    from dlzoo.export.plan.options import ExportOptions
    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.proof.recorded import Tolerance
    from dlzoo.runtime.proof.report import Report
    from dlzoo.zoo.sources.input_spec import InputSpec


def export_model(
    model: str | nn.Module,
    output: str | Path | None = None,
    *,
    options: ExportOptions | None = None,
    weights: str = "auto",
    seed: int = 0,
    inputs: Sequence[InputSpec] = (),
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    name: str | None = None,
    providers: Sequence[str] = ("cpu",),
    optimizations: Sequence[str] = ("disabled", "basic", "all"),
    strict_special_values: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> Bundle:
    """Export a model to ONNX, prove it against PyTorch, and write a bundle.

    >>> import dlzoo
    >>> bundle = dlzoo.export_model("lenet5_relu", "lenet5_relu")  # doctest: +SKIP
    >>> bundle.manifest.opset  # doctest: +SKIP
    20

    Args:
        model: a module, or what names one: a model of the zoo, ``file.py:factory``,
            ``package.module:factory``, a ``.pt2`` file, ``timm:NAME``, ``torchvision:NAME``, or
            the folder of a training run. A factory runs the code of its file.
        output: the bundle's folder; ``./NAME`` if absent.
        options: opset, batch, image size, head, preprocessing, target and lowerings.
        weights: as for :func:`dlzoo.build_model`; a module brings its own, if no file is given.
        seed: draws random weights, the inputs of the proof and the faults.
        inputs: name, shape and dtype of each input, for what no card describes.
        input_shape: in place of ``inputs``, one sample of the only one: (channels, height, width).
        num_classes: of a model that is built by name; the card's if absent.
        name: what the bundle is called; the model's name, or its class's, if absent.
        providers: where the proof runs.
        optimizations: ONNX Runtime's graph optimization levels of the proof.
        strict_special_values: let answers to inputs with NaN and infinities decide, too; they are
            only reported without it.
        force: replace a bundle that is already there.
        progress: called with each stage, each note, and how much of a download has arrived.

    Returns:
        The bundle that was written; its proof passed.

    Raises:
        DlzooError: what was asked cannot be delivered; nothing is written.
        ProofError: the verdict is fail or vacuous; nothing is written, ``report`` of the error
            has the numbers.
    """
    from dlzoo.export.prove.proof import export_and_report

    bundle, _ = export_and_report(
        model,
        output,
        options=options,
        weights=weights,
        seed=seed,
        inputs=inputs,
        input_shape=input_shape,
        num_classes=num_classes,
        name=name,
        providers=providers,
        optimizations=optimizations,
        strict_special_values=strict_special_values,
        force=force,
        progress=progress,
    )
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
    strict_special_values: bool = False,
    progress: Progress = SILENT,
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
        strict_special_values: let answers to inputs with NaN and infinities decide, too; they are
            only reported without it.
        progress: called with the name of each stage.

    Raises:
        BundleError: a file is missing, changed or damaged.
        ProviderError: a provider is missing or did not take the work.
        NativeLibraryError: the library of kernels cannot be used.
    """
    from dlzoo.runtime.bundle.bundle import Bundle
    from dlzoo.runtime.proof.limits import DEFAULT_LIMITS
    from dlzoo.runtime.proof.recorded import recorded_golden_sets
    from dlzoo.runtime.proof.validate import verify_bundle, verify_model

    if not isinstance(bundle, Bundle):
        path = Path(bundle)
        if path.suffix == ".onnx" or golden is not None:
            if golden is None:
                raise ArgumentError(
                    f"{path} is a bare .onnx file, expected a bundle. Give `golden`, too: a folder "
                    "of input_0.pb and output_0.pb."
                )
            golden_sets, notes = recorded_golden_sets(
                path,
                Path(golden),
                limits=DEFAULT_LIMITS,
                tolerance=tolerance,
                native_library=native_library,
                progress=progress,
            )
            return verify_model(
                path,
                golden_sets,
                limits=DEFAULT_LIMITS,
                notes=notes,
                providers=providers,
                optimizations=optimizations,
                allow_fallback=allow_fallback,
                native_library=native_library,
                strict_special_values=strict_special_values,
                progress=progress,
            )
        bundle = Bundle.open(path)
    elif golden is not None:
        raise ArgumentError(
            f"`golden` got {str(golden)!r} for a bundle, which brings its own golden data. "
            "Leave it out."
        )
    if against is None:
        return verify_bundle(
            bundle,
            providers=providers,
            optimizations=optimizations,
            allow_fallback=allow_fallback,
            native_library=native_library,
            strict_special_values=strict_special_values,
            progress=progress,
        )

    from dlzoo.export.diff.diff import explain_failure
    from dlzoo.export.plan.bundled_network import load_bundled_network
    from dlzoo.export.reference.fresh_golden_sets import fresh_golden_sets
    from dlzoo.zoo.module_state import in_eval_mode

    module = load_bundled_network(bundle.manifest, against, weights=weights, seed=seed)
    with in_eval_mode(module, []):
        fresh = fresh_golden_sets(bundle.manifest, module, seed=seed)
        report = verify_bundle(
            bundle,
            golden_sets=fresh,
            providers=providers,
            optimizations=optimizations,
            allow_fallback=allow_fallback,
            native_library=native_library,
            strict_special_values=strict_special_values,
            progress=progress,
        )
        return report if report else explain_failure(report, bundle, module, fresh)
