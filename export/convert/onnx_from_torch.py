"""A PyTorch network to an ONNX graph: what is asked is delivered, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from dlzoo.errors import ArgumentError, ExportError, OpsetError
from dlzoo.export.convert.attention_rank import AttentionInFourDimensions
from dlzoo.export.convert.dynamic_axes import (
    DynamicAxes,
    dynamic_ranges,
    refuse_adaptive_pooling,
)
from dlzoo.export.convert.lowering_record import record_lowering
from dlzoo.export.convert.output_names import name_outputs, provisional_names
from dlzoo.export.convert.pool_windows import write_windows
from dlzoo.export.convert.promoted_types import PromotedTypes
from dlzoo.export.convert.runtime_kernels import refuse_missing_kernels
from dlzoo.export.convert.runtime_limits import write_within_limits
from dlzoo.export.convert.stored_state import (
    DataAsDetached,
    attribute_values,
    attributes_written,
    forward_on_copies,
    restore_attributes,
)
from dlzoo.export.convert.tracing_failure import explain_failure
from dlzoo.export.convert.tracing_state import without_chatter
from dlzoo.export.graph.onnx_graph import (
    InvalidGraphError,
    OnnxGraph,
    check_graph,
    spec_of,
)
from dlzoo.export.graph.tied_weights import merge_tied_weights
from dlzoo.export.graph.trace_metadata import clear_trace_metadata
from dlzoo.export.lowering.registry import HIGHEST_OPSET, LOWEST_OPSET
from dlzoo.export.lowering.translation import LoweringPlan
from dlzoo.export.opset.opset_conversion import (
    LOWEST_NATIVE_OPSET,
    convert_down,
    write_newer_values,
)
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.version import __version__
from dlzoo.zoo.module_state import in_eval_mode
from dlzoo.zoo.sources.module_call import (
    bind_inputs,
    bind_shapes,
    copies_of,
    input_order,
    keywords_named,
)

#: The sizes that an open axis is to take, by its symbol.
AxisRanges = Mapping[str, tuple[int, int]]
#: MaxPool-22, InstanceNormalization-22 and Elu-22 have no CUDA kernel in onnxruntime-gpu 1.31.
DEFAULT_OPSET = 20
#: Tried, in this order, where an opset gives an invalid graph.
_OTHER_OPSETS = (20, 18, 21, 17, 23)


def onnx_from_torch(
    module: nn.Module,
    example_inputs: dict[str, Tensor],
    *,
    output_names: Sequence[str],
    opset: int = DEFAULT_OPSET,
    dynamic_axes: DynamicAxes | None = None,
    axis_ranges: AxisRanges | None = None,
    target: str = "ort-cpu",
    lowerings: Mapping[str, str] | None = None,
) -> OnnxGraph:
    """Export a network in eval mode; it comes back as it was, training flags and all.

    Args:
        module: any ``nn.Module`` that ``torch.export`` can trace.
        example_inputs: a tensor per input, in the order of the graph's inputs; their names become
            the graph's. Dynamic axes should be at least 2 long here: torch takes 0 and 1 for
            special.
        output_names: one for each tensor that the network gives.
        opset: of the default ONNX domain. 18 and later are the exporter's own; lower ones are
            written from 18, down to 11.
        dynamic_axes: the axes that stay open. The same symbol means the same size.
        axis_ranges: symbol -> (smallest, largest) size, where not every size is asked for.
        target: where the model will run; decides how operators are spelled.
        lowerings: operator -> spelling, where the fastest is not wanted.

    Raises:
        ArgumentError: an axis, name or opset that does not exist.
        OpsetError: the opset cannot be delivered.
        DynamicAxisError: an axis was to be open and the graph holds for one size only.
        ExportError: the network cannot be traced or translated.
    """
    axes = dynamic_axes or {}
    _check_arguments(example_inputs, opset, axes)

    def export_at(opset: int) -> OnnxGraph:
        return _export_at(
            opset,
            module,
            example_inputs,
            output_names=output_names,
            dynamic_axes=axes,
            axis_ranges=axis_ranges,
            plan=LoweringPlan(opset, target, lowerings),
        )

    try:
        return export_at(opset)
    except InvalidGraphError as error:
        remedy = _opset_that_works(export_at, opset)
        raise ExportError(
            f"{type(module).__name__} cannot be exported at opset {opset}: {error} {remedy}"
        ) from None


def _opset_that_works(export_at: Callable[[int], OnnxGraph], opset: int) -> str:
    """What helps against an invalid graph: another opset, if one that is tried gives a valid one."""
    others = [other for other in _OTHER_OPSETS if other != opset]
    for other in others:
        try:
            export_at(other)
        except (InvalidGraphError, ExportError):
            continue
        return f"Opset {other} works: use `opset={other}`."
    tried = ", ".join(map(str, others))
    return (
        f"Opsets {tried} fail, too. This is an error of the exporter (torch.onnx of torch "
        f"{torch.__version__}): report it at https://github.com/pytorch/pytorch/issues."
    )


def _export_at(
    opset: int,
    module: nn.Module,
    example_inputs: dict[str, Tensor],
    *,
    output_names: Sequence[str],
    dynamic_axes: DynamicAxes,
    axis_ranges: AxisRanges | None,
    plan: LoweringPlan,
) -> OnnxGraph:
    """As :func:`onnx_from_torch`, once.

    Raises:
        InvalidGraphError: what came out breaks a rule of ONNX, or is not what was asked for.
    """
    axes = dynamic_axes
    notes: list[str] = []
    with in_eval_mode(module, notes), without_chatter(notes), plan.tracing():
        program = trace_and_translate(
            module, example_inputs, output_names, opset, axes, plan, axis_ranges
        )
    model, traced = program.model, program.exported_program
    assert traced is not None, "torch.onnx gives the program that it translated"
    _check_number_of_outputs(model, output_names)
    name_outputs(model, output_names)

    # In this order: what failed to stay open explains the other findings.
    ranges = dynamic_ranges(model, traced, axes)
    refuse_adaptive_pooling(module, traced, plan.torch_operators)
    _check_outputs(model, traced, output_names)
    write_windows(model)
    write_within_limits(model)
    write_newer_values(model)
    if opset < LOWEST_NATIVE_OPSET:
        model = convert_down(model, opset)
    plan.attach_functions(model)
    lowering = record_lowering(module, traced, model)
    clear_trace_metadata(model)
    merge_tied_weights(model)
    RemoveUnusedNodesPass()(model)
    model.producer_name, model.producer_version = "dlzoo", __version__
    model.domain, model.model_version = None, None
    _check_opset(model, opset)
    check_graph(model)
    if plan.target in ("ort-cpu", "portable"):
        refuse_missing_kernels(model)
    return OnnxGraph(
        model=model,
        program=traced,
        opset=opset,
        ir_version=model.ir_version,
        inputs=_checked_inputs(model, example_inputs),
        outputs=tuple(spec_of(value) for value in model.graph.outputs),
        dynamic_axes=ranges,
        lowering=lowering,
        parameters=_used_parameters(traced),
        notes=(*notes, *plan.notes(), *_batch_statistics_notes(module)),
    )


def _batch_statistics_notes(module: nn.Module) -> list[str]:
    """What a user should know of batch normalization that keeps none of its statistics.

    That is training's arithmetic, asked for by ``track_running_stats=False``.
    """
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.running_mean is None
    ]
    if not names:
        return []
    return [
        f"{names[0]} normalizes with the statistics of the batch it is given"
        f"{f' (and {len(names) - 1} more layers)' if len(names) > 1 else ''}: the answer for an image depends "
        "on the others in its batch."
    ]


def _check_arguments(
    example_inputs: dict[str, Tensor], opset: int, dynamic_axes: DynamicAxes
) -> None:
    if isinstance(opset, bool) or opset not in range(LOWEST_OPSET, HIGHEST_OPSET + 1):
        raise OpsetError(
            f"`opset` got {opset!r}, expected a whole number from {LOWEST_OPSET} to "
            f"{HIGHEST_OPSET}. {DEFAULT_OPSET} runs everywhere."
        )
    for name, axes in dynamic_axes.items():
        if name not in example_inputs:
            raise ArgumentError(
                f"dynamic_axes got the input {name!r}, expected one of "
                f"{', '.join(map(repr, example_inputs))}. Name an input of the network."
            )
        rank = example_inputs[name].dim()
        wrong = [axis for axis in axes if axis not in range(rank)]
        if wrong:
            raise ArgumentError(
                f"dynamic_axes got axis {wrong[0]} of input {name!r}, expected one of 0 to "
                f"{rank - 1}. Count axes from 0."
            )


def trace_and_translate(
    module: nn.Module,
    example_inputs: dict[str, Tensor],
    output_names: Sequence[str],
    opset: int,
    dynamic_axes: DynamicAxes,
    plan: LoweringPlan,
    axis_ranges: AxisRanges | None = None,
) -> torch.onnx.ONNXProgram:
    """``torch.onnx.export``, with the spellings of a plan; its errors are explained.

    Raises:
        ExportError: the network cannot be traced or translated.
    """
    args, kwargs = bind_inputs(module, copies_of(example_inputs))
    bounds = axis_ranges or {}
    dims = {
        symbol: torch.export.Dim(symbol)
        if symbol not in bounds
        else torch.export.Dim(symbol, min=bounds[symbol][0], max=bounds[symbol][1])
        for axes in dynamic_axes.values()
        for symbol in axes.values()
    }
    shapes = {
        name: {axis: dims[symbol] for axis, symbol in dynamic_axes.get(name, {}).items()}
        for name in example_inputs
    }

    def export(copied: set[str]) -> torch.onnx.ONNXProgram | None:
        # As matrix products and softmax: the fused attention of a CPU is decomposed with strides
        # that a masked network's next reshape does not fit, and each device has another.
        with (
            sdpa_kernel(SDPBackend.MATH),
            AttentionInFourDimensions(),
            PromotedTypes(),
            DataAsDetached(),
            keywords_named(module, example_inputs),
            forward_on_copies(module, copied),
        ):
            return torch.onnx.export(
                module,
                args,
                kwargs=kwargs,
                dynamo=True,
                input_names=input_order(module, example_inputs),
                output_names=provisional_names(len(output_names)),
                opset_version=max(opset, LOWEST_NATIVE_OPSET),
                dynamic_shapes=bind_shapes(module, shapes),
                custom_translation_table=plan.translation_table(),
                verbose=False,
            )

    try:
        stored = attribute_values(module)
        try:
            program = export(set())
        except Exception as error:
            written = attributes_written(module, error)
            if not written:
                raise
            restore_attributes(stored)  # a trace that failed has written into them
            program = export(written)
    except Exception as error:
        if plan.error is not None:
            raise plan.error from None
        raise explain_failure(error, module, example_inputs) from None
    assert program is not None, "torch.onnx.export gives a program with dynamo=True"
    return program


def _check_number_of_outputs(model: ir.Model, output_names: Sequence[str]) -> None:
    outputs = model.graph.outputs
    if len(outputs) != len(output_names):
        raise ExportError(
            f"The network gives {len(outputs)} tensors, but {len(output_names)} outputs are "
            f"named ({', '.join(output_names)}). Name each of them once."
        )


def _check_outputs(
    model: ir.Model, program: torch.export.ExportedProgram, output_names: Sequence[str]
) -> None:
    outputs = model.graph.outputs
    (results,) = program.graph.output_node().args
    traced = [node.meta["val"] for node in results if isinstance(node, torch.fx.Node)]
    for value, name, expected in zip(
        outputs, output_names, traced[-len(outputs) :], strict=True
    ):
        spec = spec_of(value)
        dtype = str(expected.dtype).removeprefix("torch.")
        if (spec.name, spec.dtype, len(spec.dims)) != (name, dtype, expected.dim()):
            raise InvalidGraphError(
                f"Output {name!r} came out as {spec}, expected {dtype} of rank "
                f"{expected.dim()}."
            )


def _checked_inputs(
    model: ir.Model, example_inputs: dict[str, Tensor]
) -> tuple[TensorSpec, ...]:
    specs = tuple(spec_of(value) for value in model.graph.inputs)
    got = {spec.name: (spec.dtype, len(spec.dims)) for spec in specs}
    expected = {
        name: (str(x.dtype).removeprefix("torch."), x.dim())
        for name, x in example_inputs.items()
    }
    if got != expected:
        raise InvalidGraphError(
            f"The graph has the inputs {', '.join(map(str, specs))}, expected "
            f"{', '.join(f'{n} {d} of rank {r}' for n, (d, r) in expected.items())}."
        )
    return specs


def _check_opset(model: ir.Model, opset: int) -> None:
    delivered = model.opset_imports.get("")
    if delivered != opset:
        raise OpsetError(
            f"`opset` got {opset}, but the installed onnxscript delivers {delivered}: its "
            f"converter knows no such version. Use `opset={delivered}`, or a newer onnxscript."
        )


def _used_parameters(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    users = {node.name: node.users for node in program.graph.nodes if node.op == "placeholder"}
    return tuple(
        str(spec.target)
        for spec in program.graph_signature.input_specs
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and users.get(spec.arg.name)
    )
