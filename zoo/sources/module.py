"""Your own module, with the weights it has or those of a file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._script import RecursiveScriptModule
from torch.jit._trace import TopLevelTracedModule
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils import _pytree

from dlzoo.errors import ArgumentError, ExportError, describe_exception
from dlzoo.zoo.module_state import Changes, in_eval_mode, state_restored
from dlzoo.zoo.module_wrappers import unwrap
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.module_call import bind_inputs, copies_of
from dlzoo.zoo.sources.source import ModelSource, SourceOptions, refuse_options
from dlzoo.zoo.state_dict import copy_state_dict, require_finite_weights, sha256_of_state_dict
from dlzoo.zoo.state_dict_file import read_state_dict_file

_SCORES_RANK = 2
#: Where torch keeps its quantized layers.
_QUANTIZED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.sparse.quantized",
)
#: Threads may sum in another order from run to run; randomness moves answers by far more.
_MAX_DIFFERENCE = 1e-3
#: Runs more of a network that draws random numbers: three elements of a dropout are the same twice in
#: one of eight cases.
_NUM_RANDOM_RUNS = 8


def source_from_module(
    module: nn.Module, options: SourceOptions, *, origin: str | None = None
) -> ModelSource:
    """Take a module as it is; it is run twice, to see what comes out and whether it stays.

    Args:
        module: on the CPU, in float32.
        options: with its inputs.
        origin: where it comes from, for people; its class if absent.

    Raises:
        ArgumentError: no inputs are named, or it is not in float32 on the CPU.
        NonFiniteWeightsError: a weight is NaN or Inf.
    """
    module, wrappers = unwrap(module)
    kind = type(module).__name__
    refuse_options(f"the module {kind}", options, ["num_classes"])
    _require_traceable(module, kind)
    notes = [f"{wrapper} around the network is taken off." for wrapper in wrappers]
    is_from_file = options.weights != "auto"
    if is_from_file:
        notes += load_weights_file(module, options.weights, kind)
    _require_float32_on_cpu(module)
    require_finite_weights(module, options.name or kind)
    inputs = options.inputs or options.default_inputs or _ask_for_inputs(module)
    outputs = describe_outputs(module, {spec.name: _drawn(spec) for spec in inputs})
    return ModelSource(
        name=options.name or kind.lower(),
        network=module,
        inputs=inputs,
        output_names=outputs.names,
        gives_scores=outputs.gives_scores,
        notes=(*notes, *outputs.notes),
        card={
            "summary": origin or f"module {kind}",
            "num_parameters": sum(p.numel() for p in module.parameters()),
        },
        weights={
            "kind": "file" if is_from_file else "module",
            "source": Path(options.weights).name
            if is_from_file
            else origin or f"the module {kind}",
            "sha256": sha256_of_state_dict(module.state_dict()),
            "seed": None,
            "license": None,
        },
    )


def _require_traceable(module: nn.Module, kind: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise ArgumentError(
            f"{kind} is TorchScript, which torch.export does not trace. Give the nn.Module that it "
            "was made from."
        )
    for path, part in module.named_modules():
        if isinstance(part, RecursiveScriptModule) and not _is_traced(module, path):
            raise ArgumentError(
                f"{kind} has {path!r} as TorchScript, which torch.export does not trace. Put the "
                "nn.Module that it was made from in its place."
            )
        if type(part).__module__.startswith(_QUANTIZED):
            raise ArgumentError(
                f"{kind} is quantized: {path!r} is {type(part).__module__}.{type(part).__name__}, "
                "which has no ONNX form. Export the float network, and quantize the model.onnx of "
                "its bundle, for example with onnxruntime.quantization."
            )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
            raise ArgumentError(
                f"{kind} has {name} without a shape: a lazy layer that never ran. Call the module "
                "once on a batch first."
            )


def _is_traced(module: nn.Module, path: str) -> bool:
    """Whether a part is within one that ``torch.jit.trace`` made, which may export."""
    steps = path.split(".")
    parts = (module.get_submodule(".".join(steps[:n])) for n in range(1, len(steps) + 1))
    return any(isinstance(part, TopLevelTracedModule) for part in parts)


def load_weights_file(module: nn.Module, path: str, subject: str) -> tuple[str, ...]:
    """Copy the weights of a ``.safetensors`` or ``.pth`` file into a module.

    Returns:
        What the user should know: which of several state dicts was taken.

    Raises:
        WeightsError: it is not there, not readable without running code, or does not fit.
    """
    file = Path(path).expanduser()
    read = read_state_dict_file(file)
    copy_state_dict(module, {**read.tensors, **read.extra_state}, f"{file.name} for {subject}")
    return read.notes


@dataclass(frozen=True)
class DescribedOutputs:
    """What a network gives: see :func:`describe_outputs`."""

    names: tuple[str, ...]
    #: Whether it is one tensor [N, K].
    gives_scores: bool
    #: What the forward writes into, for the user.
    notes: tuple[str, ...]


def describe_outputs(module: nn.Module, inputs: Mapping[str, Tensor]) -> DescribedOutputs:
    """A name for each tensor that comes out, and what the forward writes into on the way.

    A dictionary's keys are the names; where a network gives one tensor it is ``logits`` if it
    is [N, K], else ``output``; others count: ``output_0``.

    Raises:
        ArgumentError: the network does not take these inputs, or gives another answer each time.
        ExportError: it gives no tensor.
    """
    changes = Changes()
    given = copies_of(inputs)
    try:
        with in_eval_mode(module, []), torch.no_grad():
            with state_restored(module, changes):
                result = _run(module, given)
            draws = torch.get_rng_state()
            with state_restored(module):
                others = [_run(module, copies_of(inputs))]
            if not torch.equal(draws, torch.get_rng_state()):
                # A few random elements may be the same twice.
                for _ in range(_NUM_RANDOM_RUNS):
                    with state_restored(module):
                        others.append(_run(module, copies_of(inputs)))
    except Exception as error:  # a network's own code may raise anything
        shapes = ", ".join(
            f"{name} {list(x.shape)} {str(x.dtype).removeprefix('torch.')}"
            for name, x in inputs.items()
        )
        raise ArgumentError(
            f"{type(module).__name__} fails in PyTorch itself on {shapes}: "
            f"{describe_exception(error)}. Give it inputs that it takes, or fix it."
        ) from None
    leaves, _ = _pytree.tree_flatten_with_path(result)
    tensors = [(path, leaf) for path, leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors:
        raise ExportError(
            f"{type(module).__name__} gives {type(result).__name__} and no tensor. Let its "
            "forward return a tensor, or a tuple, list or dictionary of them."
        )
    for again in others:
        _require_one_answer(module, result, again)
    if len(tensors) == 1 and isinstance(result, Tensor):
        is_scores = result.dim() == _SCORES_RANK
        return DescribedOutputs(
            (("logits" if is_scores else "output"),), is_scores, _notes_on(changes, given)
        )
    names = [_name_of(path) for path, _ in tensors]
    names = [
        f"output_{name}" if name[0].isdigit() or name in inputs else name for name in names
    ]
    return DescribedOutputs(tuple(names), False, _notes_on(changes, given))


def _run(module: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    args, kwargs = bind_inputs(module, inputs)
    return module(*args, **kwargs)


def _notes_on(changes: Changes, given: Mapping[str, Tensor]) -> tuple[str, ...]:
    """What a forward writes into, by name.

    Args:
        changes: of one run.
        given: the tensors that this run was given, and nobody else.
    """
    notes = [
        f"forward changes {kind} {names}: every run starts from the stored value, and the graph "
        "does not change it."
        for kind, names in (
            ("parameter", _quoted(changes.parameters)),
            ("buffer", _quoted(changes.buffers)),
            ("attribute", _quoted(changes.attributes)),
        )
        if names
    ]
    written = [name for name, x in given.items() if x._version]
    if written:
        notes.append(f"forward changes its input {_quoted(written)}: the graph does not.")
    return tuple(notes)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _drawn(spec: InputSpec) -> Tensor:
    """N(0, 1), so that what is random in a network shows; zeros would pass a dropout unchanged."""
    if spec.dtype != "float32":
        return spec.example()
    return torch.randn(spec.shape, generator=torch.Generator().manual_seed(0))


def _require_one_answer(module: nn.Module, result: Any, again: Any) -> None:
    for a, b in zip(_pytree.tree_leaves(result), _pytree.tree_leaves(again), strict=True):
        if not isinstance(a, Tensor) or not a.numel() or a.shape != b.shape:
            continue
        x, y = (value.detach().double().nan_to_num() for value in (a, b))
        if float((x - y).abs().max()) > _MAX_DIFFERENCE * float(x.abs().max()):
            raise ArgumentError(
                f"{type(module).__name__} gives another answer each time, in eval mode, on one "
                "input: something in its forward is random (F.dropout without "
                "training=self.training?). Fix that first."
            )


def _name_of(path: tuple[Any, ...]) -> str:
    """Keys and positions on the way to a tensor, joined: ``features_0``."""
    parts = [
        getattr(step, "key", getattr(step, "idx", getattr(step, "name", step)))
        for step in path
    ]
    return "_".join(str(part) for part in parts)


def _ask_for_inputs(module: nn.Module) -> tuple[InputSpec, ...]:
    names = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    example = " ".join(f"--input {name}=1x3x224x224:float32" for name in names or ["input"])
    raise ArgumentError(
        f"{type(module).__name__} needs the shape and dtype of its inputs, got none. Write for "
        f"example {example} (in Python: input_shape=(3, 224, 224), or inputs=[...])."
    )


def _require_float32_on_cpu(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type == "meta":
            raise ArgumentError(
                f"{type(module).__name__} has {name} on meta, expected the CPU: it has a shape "
                'and no values. Call .to_empty(device="cpu"), then load the weights.'
            )
        if tensor.layout != torch.strided:
            layout = str(tensor.layout).removeprefix("torch.")
            raise ArgumentError(
                f"{type(module).__name__} has {name} as a {layout} tensor, expected a dense one: "
                "ONNX has no sparse weights. Keep it as .to_dense()."
            )
        if tensor.device.type != "cpu":
            raise ArgumentError(
                f"{type(module).__name__} has {name} on {tensor.device}, expected the CPU: the "
                "reference is computed there. Call .cpu() first."
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ArgumentError(
                f"{type(module).__name__} has {name} in {dtype}, expected float32. Call .float() "
                "first; reduced precision comes after the export."
            )
