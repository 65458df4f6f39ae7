"""A network that ``torch.export`` traced before: a ``.pt2`` file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError, describe_exception
from dlzoo.zoo.sources.input_spec import DTYPES, InputSpec
from dlzoo.zoo.sources.module import source_from_module
from dlzoo.zoo.sources.source import ModelSource, SourceOptions, refuse_options

#: torch.export specializes sizes 0 and 1: an open axis is given an example of this size.
_OPEN_SIZE = 2
#: The position of the training flag in the operators that behave otherwise in training.
_TRAINING_FLAGS = {
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.feature_dropout.default: 2,
    torch.ops.aten.batch_norm.default: 5,
}


def source_from_program(path: Path, options: SourceOptions) -> ModelSource:
    """Read an ExportedProgram; an axis is open in the bundle only where it is open in the program.

    Raises:
        ArgumentError: it is not such a file, or was exported in training mode.
    """
    refuse_options(path.name, options, ["inputs", "num_classes", "weights"])
    program = _load(path)
    _refuse_training(path, program)
    specs, is_batch_open = _inputs_of(path, program)
    network: nn.Module = program.module()
    # It refuses train() and eval(), which have nothing to change in it: nn.Module's own set a
    # flag that it does not read.
    for name in ("train", "eval"):
        network.__dict__.pop(name, None)
    network.eval()
    source = source_from_module(
        network,
        replace(options, inputs=specs, name=options.name or path.stem),
        origin=path.name,
    )
    fixed_batch = None if is_batch_open or not specs[0].shape else specs[0].shape[0]
    return replace(source, fixed_batch=fixed_batch)


def _load(path: Path) -> torch.export.ExportedProgram:
    path = path.expanduser()
    if not path.is_file():
        raise ArgumentError(f"MODEL got {str(path)!r}, expected a .pt2 file. Check the path.")
    try:
        return torch.export.load(path)
    except Exception as error:  # its reader raises whatever the damage brings about
        raise ArgumentError(
            f"{path.name} cannot be read as an ExportedProgram: {describe_exception(error)}. "
            "Write it with torch.export.save."
        ) from None


def _refuse_training(path: Path, program: torch.export.ExportedProgram) -> None:
    for node in program.graph.nodes:
        position = _TRAINING_FLAGS.get(node.target)
        if position is not None and len(node.args) > position and node.args[position]:
            raise ArgumentError(
                f"{path.name} was exported in training mode ({node.target} at {node.name}), so "
                "its answers are random. Call eval() before torch.export.export."
            )


def _inputs_of(
    path: Path, program: torch.export.ExportedProgram
) -> tuple[tuple[InputSpec, ...], bool]:
    """Name, shape and dtype of each input, and whether axis 0 of the first is open."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specs = []
    is_batch_open = False
    for number, name in enumerate(program.graph_signature.user_inputs):
        value = nodes[str(name)].meta.get("val") if name is not None else None
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"{path.name} has the input {name!r} that is no tensor. Export it with tensors "
                "as inputs."
            )
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise ArgumentError(
                f"{path.name} has the input {name!r} in {dtype}, expected one of "
                f"{', '.join(DTYPES)}. Export it with another dtype."
            )
        shape = tuple(size if isinstance(size, int) else _OPEN_SIZE for size in value.shape)
        specs.append(InputSpec(name=str(name), shape=shape, dtype=dtype))
        if number == 0:
            is_batch_open = bool(value.dim()) and not isinstance(value.shape[0], int)
    return tuple(specs), is_batch_open
