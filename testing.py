"""Assert parity in your own tests: one call exports a module, proves it, and names what is wrong.

``pytest_plugin.py`` beside this file gives tests the providers to run on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlzoo.errors import ArgumentError
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dlzoo.runtime.proof.report import Report

_OPTIMIZATIONS = ("disabled", "all")


def assert_onnx_parity(
    module: nn.Module,
    inputs: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    *,
    opset: int = 20,
    provider: str = "cpu",
    target: str = "ort-cpu",
    lowerings: Mapping[str, str] | None = None,
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    strict_special_values: bool = False,
) -> Report:
    """Assert that a module's ONNX graph gives its answers, to float32's own noise.

    The module is exported in eval mode (and comes back as it was), run on ONNX Runtime with graph
    optimization off and on, and compared with PyTorch in float64: rho2 and rhomax, the error's
    RMS and largest element as multiples of PyTorch's own error in float32, must not exceed their
    limits. A comparison that would miss a change of 10 % in the weights proves nothing, and fails.

    Args:
        module: any that ``torch.export`` can trace, with float32 weights on the CPU.
        inputs: a tensor, several in the order of ``forward``, or by name.
        opset: of the graph.
        provider: ``cpu``, ``cuda``, …; the fixture ``onnx_provider`` gives each in turn.
        target: as for :class:`dlzoo.ExportOptions`.
        lowerings: operator -> spelling, as for :class:`dlzoo.ExportOptions`.
        dynamic_axes: input -> axis -> symbol, for axes that stay open.
        limits: the largest rho2 and rhomax that pass.
        strict_special_values: where the inputs hold NaN or infinities, fail where the graph does
            not have NaN and Inf in the outputs as PyTorch does; a note of a run says so without it.

    Returns:
        The report, true; its ``candidates`` have the numbers.

    Raises:
        AssertionError: the graph is wrong, or nothing was proved; the first wrong layer is named.
        ExportError: the module cannot be exported as asked.
        ProviderError: the provider is missing or did not take the work.

    >>> import torch
    >>> from dlzoo.testing import assert_onnx_parity
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Mish())
    >>> bool(assert_onnx_parity(net, torch.randn(2, 4)))
    True
    """
    from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
    from dlzoo.export.reference.power import measure_power
    from dlzoo.export.reference.reference import compute_golden_set
    from dlzoo.runtime.proof.validate import verify_model
    from dlzoo.zoo.module_state import in_eval_mode
    from dlzoo.zoo.sources.module import describe_outputs

    named = _named_inputs(module, inputs)
    notes: list[str] = []
    with in_eval_mode(module, notes), tempfile.TemporaryDirectory() as folder:
        output_names = describe_outputs(module, named).names
        graph = onnx_from_torch(
            module,
            named,
            output_names=output_names,
            opset=opset,
            dynamic_axes=dynamic_axes,
            target=target,
            lowerings=lowerings,
        )
        path = Path(folder) / "model.onnx"
        graph.save(path)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in named.items()}
        golden = compute_golden_set(
            "given", "given", module, arrays, output_names=output_names
        )
        power = None
        if graph.parameters:
            power = measure_power(
                module,
                [golden],
                dtypes={spec.name: spec.dtype for spec in graph.outputs},
                limits=limits,
                seed=0,
                parameters=graph.parameters,
            )
        report = verify_model(
            path,
            [golden],
            providers=[provider],
            optimizations=_OPTIMIZATIONS,
            power=power,
            limits=limits,
            strict_special_values=strict_special_values,
        )
        if not report:
            raise AssertionError(
                _explanation(
                    module,
                    path,
                    arrays,
                    report,
                    provider,
                    target=target,
                    lowerings=lowerings,
                    limits=limits,
                )
            )
    return report


def _named_inputs(
    module: nn.Module, inputs: Tensor | Sequence[Tensor] | Mapping[str, Tensor]
) -> dict[str, Tensor]:
    import inspect

    from torch import Tensor

    if isinstance(inputs, Mapping):
        return dict(inputs)
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    parameters = list(inspect.signature(module.forward).parameters.values())
    known = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(known) < len(tensors):  # *args: they have no names of their own
        known = [f"input_{number}" for number in range(len(tensors))]
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise ArgumentError(
            f"`inputs` of {type(module).__name__} got {inputs!r:.80}, expected a tensor, a list of "
            "tensors, or a dictionary of them. Pass what forward takes."
        )
    return dict(zip(known, tensors, strict=False))


def _explanation(
    module: nn.Module,
    path: Path,
    arrays: Mapping[str, Any],
    report: Report,
    provider: str,
    *,
    target: str,
    lowerings: Mapping[str, str] | None,
    limits: Limits,
) -> str:
    lines = [f"{type(module).__name__} on {provider}: {report.explanation}"]
    if report.verdict == "fail":
        from dlzoo.export.diff.diff import first_wrong_layer

        culprit = first_wrong_layer(
            module,
            path,
            dict(arrays),
            limits=limits,
            providers=[provider],
            target=target,
            lowerings=lowerings,
        )
        lines.append(
            f"The first wrong layer is {culprit}"
            if culprit is not None
            else "No value of the graph differs from the trace: what torch.export traced is not "
            "what runs. Does forward depend on torch.compiler.is_exporting()?"
        )
    return "\n".join(lines)
