"""One line for what goes wrong inside torch.export and torch.onnx."""

from __future__ import annotations

import linecache
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.onnx._internal.exporter._errors import DispatchError

from dlzoo.errors import DynamicAxisError, ExportError, describe_exception
from dlzoo.export.convert.tracing_state import is_networks_own
from dlzoo.zoo.module_state import state_restored
from dlzoo.zoo.sources.module_call import bind_inputs, copies_of

#: How torch.export says that Python code asks for a tensor's values.
_DECISIONS_ON_VALUES = (GuardOnDataDependentSymNode, DataDependentOutputException)
_STACK_ENTRY = re.compile(r'File "(.+)", line (\d+), in ')
_TARGET = re.compile(r"Error when translating node .*call_function\[target=([\w.:<> ]+)\]")


def explain_failure(
    error: Exception, module: nn.Module, example_inputs: dict[str, Tensor]
) -> ExportError:
    """What to tell the user: the operator without an ONNX form, or the cause of a failed trace."""
    name = type(module).__name__
    causes = list(_causes(error))
    operator = _untranslated_operator(causes)
    if operator is not None:
        open_argument = _open_size_in_arguments(causes)
        if open_argument is not None:
            argument, axis, input_name = open_argument
            return DynamicAxisError(
                f"{name} cannot be exported with an open axis {axis} of input {input_name!r}: "
                f"argument {argument!r} of {operator} changes with it, and ONNX has a constant there. "
                f"Fix that axis, for example {'`batch=1`' if axis == 0 else '`image_size=H,W`'}."
            )
        reason = _failed_translation(causes)
        if reason is not None:
            return ExportError(
                f"{name} cannot be exported: the translation of the operator {operator} stops at "
                f"{describe_exception(reason)}. Write that operation in another way, or give it a "
                "translation of your own with dlzoo.register_lowering."
            )
        return ExportError(
            f"{name} cannot be exported: the operator {operator} has no ONNX translation. Give it "
            "one with dlzoo.register_lowering, or replace that operation by ones that ONNX has."
        )
    own = _failure_without_tracing(module, example_inputs)
    if own is not None:
        shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in example_inputs.items())
        return ExportError(
            f"{name} fails in PyTorch itself on {shapes}: {describe_exception(own)}. Give it inputs that "
            "it takes, or fix the network."
        )
    cause = next(
        (c for c in causes[1:] if not isinstance(c, torch.onnx.OnnxExporterError)), error
    )
    place = _place(causes, module)
    said = f"{describe_exception(cause)}{f' ({place})' if place else ''}"
    if isinstance(cause, _DECISIONS_ON_VALUES):
        return ExportError(
            f"{name} cannot be traced by torch.export: {said}. Write the network without Python "
            "decisions on tensor values, for example with torch.where."
        )
    return ExportError(
        f"{name} cannot be exported, for a reason that is not known here: {said}. Write that "
        "operation in another way, or report it with the network's code at "
        f"https://github.com/pytorch/pytorch/issues: torch.onnx of torch {torch.__version__} "
        "stops at it."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )


def _untranslated_operator(causes: list[BaseException]) -> str | None:
    """The operator that a translation stopped at, with the path of its module."""
    match = next(filter(None, (_TARGET.search(str(cause)) for cause in causes)), None)
    if match is None:
        return None
    operator = match[1].removeprefix("torch.ops.")
    node = _node_of(causes)
    if node is None:
        return operator
    path, _ = list(node.meta["nn_module_stack"].values())[-1]
    return f"{operator} in module {path!r}" if path else f"{operator} in forward"


def _failed_translation(causes: list[BaseException]) -> BaseException | None:
    """What a translation raised; None where there is none for these types."""
    if any(isinstance(cause, DispatchError) for cause in causes):
        return None
    return next((c for c in causes if not isinstance(c, torch.onnx.OnnxExporterError)), None)


def _node_of(causes: list[BaseException]) -> torch.fx.Node | None:
    """The node that a translation stopped at, if it belongs to a module."""
    # Only the translator's own frames know the node; its messages do not say where it is.
    for cause in causes:
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            node = frame.f_locals.get("node")
            if isinstance(node, torch.fx.Node) and node.meta.get("nn_module_stack"):
                return node
    return None


def _place(causes: list[BaseException], module: nn.Module) -> str:
    """Where in the network it happened: module and source line; empty where that is not known."""
    paths = {id(part): path for path, part in module.named_modules()}
    for cause in reversed(causes):
        path, line = "", ""
        for frame, number in traceback.walk_tb(cause.__traceback__):
            file = frame.f_code.co_filename
            path = paths.get(id(frame.f_locals.get("self"))) or path
            if is_networks_own(file) and Path(file).is_file() and _is_within(frame):
                line = _source_line(file, number)
        if line:
            return f"{_module_title(path)}, {line}"
    node = _node_of(causes)
    if node is None:
        return ""
    path, _ = list(node.meta["nn_module_stack"].values())[-1]
    entries = _STACK_ENTRY.findall(str(node.meta.get("stack_trace", "")))
    lines = [_source_line(f, int(n)) for f, n in entries if is_networks_own(f)]
    return ", ".join([_module_title(path), *lines[-1:]])


def _is_within(frame: FrameType) -> bool:
    """Whether a frame was called, however indirectly, by torch: the caller of an export is not."""
    outer = frame.f_back
    while outer is not None:
        if outer.f_code is nn.Module._call_impl.__code__:
            return True
        outer = outer.f_back
    return False


def _module_title(path: str) -> str:
    return f"in module {path!r}" if path else "in forward"


def _source_line(file: str, number: int) -> str:
    return f"{Path(file).name}:{number}: {linecache.getline(file, number).strip()}"


def _open_size_in_arguments(causes: list[BaseException]) -> tuple[str, int, str] | None:
    """The argument that became an attribute and changes with an open axis: its name, axis and input."""
    node = _node_of(causes)
    is_attribute = any(
        isinstance(cause, TypeError) and "SymbolicTensor" in str(cause) for cause in causes
    )
    if not is_attribute or node is None or not isinstance(node.target, torch._ops.OpOverload):
        return None
    for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
        size = value.meta.get("val") if isinstance(value, torch.fx.Node) else None
        if not isinstance(size, torch.SymInt):
            continue
        symbols = size.node.expr.free_symbols
        for placeholder in node.graph.find_nodes(op="placeholder"):
            tensor = placeholder.meta.get("val")
            for axis, length in enumerate(getattr(tensor, "shape", ())):
                if (
                    isinstance(length, torch.SymInt)
                    and symbols & length.node.expr.free_symbols
                ):
                    return str(argument.name), axis, str(placeholder.name)
    return None


def _failure_without_tracing(
    module: nn.Module, example_inputs: dict[str, Tensor]
) -> Exception | None:
    args, kwargs = bind_inputs(module, copies_of(example_inputs))
    try:
        with torch.no_grad(), state_restored(module):
            module(*args, **kwargs)
    except Exception as error:
        return error
    return None
