"""What one export does about lowerings: choose, translate, and add the bodies of functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch.overrides import TorchFunctionMode

from dlzoo.errors import ExportError
from dlzoo.export.lowering.function_body import attach_functions
from dlzoo.export.lowering.kernels import Target, require_target
from dlzoo.export.lowering.operators import OPERATORS
from dlzoo.export.lowering.own_domain import function_from_text
from dlzoo.export.lowering.registry import (
    DOMAIN,
    Choice,
    Operator,
    choose_lowering,
    parse_overrides,
)

#: On nodes, until the record of lowerings is made: the operator, and why it is spelled so.
CHOSEN_OPERATOR, CHOSEN_SPELLING, CHOSEN_REASON = (
    "dlzoo.operator",
    "dlzoo.spelling",
    "dlzoo.reason",
)


class LoweringPlan:
    """The lowerings of one export: for an opset, a target and what the user asked for.

    Raises:
        ArgumentError: no such target, operator or spelling.
    """

    def __init__(
        self, opset: int, target: str = "ort-cpu", overrides: Mapping[str, str] | None = None
    ) -> None:
        self.opset = opset
        self.target: Target = require_target(target)
        asked = [f"{name}={key}" for name, key in (overrides or {}).items()]
        self.overrides = parse_overrides(asked, OPERATORS)
        #: Names of the operators that were translated.
        self.used: set[str] = set()
        #: The first error of a choice: the exporter would bury it under its own.
        self.error: ExportError | None = None

    @property
    def torch_operators(self) -> frozenset[str]:
        """Names of the torch operators that are translated by us, as in ``aten.mish.default``."""
        return frozenset(
            name
            for operator in OPERATORS.values()
            if any(lowering.translate for lowering in operator.lowerings)
            for name in operator.torch_operators
        )

    def translation_table(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """For ``torch.onnx.export(custom_translation_table=...)``."""
        by_torch_operator: dict[str, list[Operator]] = {}
        for operator in OPERATORS.values():
            if any(lowering.translate for lowering in operator.lowerings):
                for name in operator.torch_operators:
                    by_torch_operator.setdefault(name, []).append(operator)
        return {
            torch_operator(name): self._translator(operators)
            for name, operators in by_torch_operator.items()
        }

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace Python functions that have a lowering as one operator each."""
        replaced = {
            operator.torch_function: operator.replacement
            for operator in OPERATORS.values()
            if operator.torch_function is not None and operator.replacement is not None
        }
        with _Replaced(replaced):
            yield

    def notes(self) -> list[str]:
        """What the user asked for and the network has no use for."""
        return [
            f"The lowering {name}={key} changed nothing: the network has no {name}."
            for name, key in self.overrides.items()
            if name not in self.used
        ]

    def attach_functions(self, model: ir.Model) -> None:
        """Add the body of every function of ours that the graph calls."""
        bodies = {
            op_type: function_from_text(lowering.body, model.opset_imports[""])
            for operator in OPERATORS.values()
            for lowering in operator.lowerings
            if lowering.body
            for op_type in _functions_of(lowering.onnx)
        }
        attach_functions(model, bodies)

    def _translator(self, operators: list[Operator]) -> Callable[..., Any]:
        def translate(*args: Any, **kwargs: Any) -> Any:
            operator = next(
                op for op in operators if op.is_meant is None or op.is_meant(*args, **kwargs)
            )
            try:
                choice = choose_lowering(
                    operator, self.opset, self.target, self.overrides, (args, kwargs)
                )
            except ExportError as error:
                self.error = self.error or error
                raise
            assert choice.lowering.translate is not None, (
                "the exporter's own was not asked for"
            )
            outputs = choice.lowering.translate(*args, **kwargs)
            _mark(outputs, operator, choice)
            self.used.add(operator.name)
            return outputs

        return translate


class _Replaced(TorchFunctionMode):
    """Calls an operator in place of a Python function, on this thread and while it is on."""

    def __init__(self, replaced: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._replaced = replaced

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        operator = self._replaced.get(func)
        return (operator or func)(*args, **(kwargs or {}))


def torch_operator(name: str) -> Callable[..., Any]:
    """The operator of a name as in ``aten.mish.default``."""
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    operator: Callable[..., Any] = found
    return operator


def _functions_of(names: tuple[str, ...]) -> list[str]:
    prefix = f"{DOMAIN}::"
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _mark(outputs: Any, operator: Operator, choice: Choice) -> None:
    """Leave the choice on the nodes that give the outputs, for the record."""
    for value in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
        node = value.producer() if isinstance(value, ir.Value) else None
        if node is not None:
            node.metadata_props[CHOSEN_OPERATOR] = operator.name
            node.metadata_props[CHOSEN_SPELLING] = choice.lowering.key
            node.metadata_props[CHOSEN_REASON] = choice.reason
