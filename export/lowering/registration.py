"""A lowering for anybody's own operator."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from dlzoo.errors import ArgumentError
from dlzoo.export.lowering.onnx_operators import op
from dlzoo.export.lowering.operators import OPERATORS
from dlzoo.export.lowering.own_domain import call_function, function_from_text
from dlzoo.export.lowering.registry import (
    HIGHEST_OPSET,
    LOWEST_OPSET,
    Lowering,
    Operator,
    add_operator,
)

_Translate = TypeVar("_Translate", bound=Callable[..., Any])
_NAME = re.compile(r"(?P<library>\w+)(::|\.)(?P<operator>\w+)(\.(?P<overload>\w+))?")


def register_lowering(
    operator: str,
    *,
    body: str = "",
    min_opset: int = LOWEST_OPSET,
    replace: bool = False,
) -> Callable[[_Translate], _Translate]:
    """Say how an operator of a ``torch.library`` is written in ONNX.

    The decorated function takes ``op``, whose attributes are the operators of ONNX's opset 18,
    and then the operator's own arguments: tensors, and numbers as Python has them. It gives what
    the operator gives. Exports to lower opsets are written from there.

    With ``body`` the operator becomes one node of domain ``dlzoo`` and a function in the file;
    the decorated function then gives that node's inputs and attributes: ``return (x,), {}``.

    Args:
        operator: ``library::operator``, or ``library::operator.overload``.
        body: a function in ONNX's text format, such as ``Double (x) => (y) { y = Add (x, x) }``.
        min_opset: the first opset that has what the lowering calls.
        replace: let it take the place of a lowering that is there already.

    Raises:
        ArgumentError: there is no such operator, it has a lowering, or ``body`` cannot be read.

    Example:
        >>> @torch.library.custom_op("readme::scaled_tanh", mutates_args=())
        ... def scaled_tanh(x: torch.Tensor, scale: float) -> torch.Tensor:
        ...     return torch.tanh(scale * x)
        >>> @scaled_tanh.register_fake
        ... def _(x, scale):
        ...     return torch.empty_like(x)
        >>> @register_lowering("readme::scaled_tanh")
        ... def _(op, x, scale):
        ...     return op.Tanh(op.Mul(x, scale))
    """
    library, name, torch_operator = _parse(operator)
    key = f"{library}.{name}"
    if key in OPERATORS and not replace:
        raise ArgumentError(
            f"Lowering {key!r} is registered already. Choose another operator, or pass "
            "replace=True."
        )
    function_name = _function_name(key, body) if body else ""

    def register(translate: _Translate) -> _Translate:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not body:
                return translate(op, *args, **kwargs)
            inputs, attributes = translate(op, *args, **kwargs)
            return call_function(function_name, *inputs, **attributes)

        OPERATORS.pop(key, None)
        lowering = Lowering(
            operator=key,
            spelling="function" if body else "decomposed",
            onnx=(f"dlzoo::{function_name}",) if body else (),
            translate=call,
            min_opset=min_opset,
            body=body,
            note="registered by the user",
        )
        add_operator(
            Operator(name=key, torch_operators=(torch_operator,), formula="the user's own"),
            lowering,
        )
        return translate

    return register


def _parse(operator: str) -> tuple[str, str, str]:
    """Library, operator, and the name that torch.ops has for it."""
    match = _NAME.fullmatch(operator)
    if match is None:
        raise ArgumentError(
            f"register_lowering got {operator!r}, expected library::operator. Write the name as "
            "in torch.library.custom_op."
        )
    library, name = match["library"], match["operator"]
    overload = match["overload"] or "default"
    try:
        getattr(getattr(getattr(torch.ops, library), name), overload)
    except (AttributeError, RuntimeError):
        raise ArgumentError(
            f"register_lowering got {operator!r}, but torch.ops has no such operator. Define it "
            "first, with torch.library.custom_op."
        ) from None
    return library, name, f"{library}.{name}.{overload}"


def _function_name(operator: str, body: str) -> str:
    try:
        return str(function_from_text(body, HIGHEST_OPSET).name)
    except Exception as error:  # onnx.parser raises its own and bare RuntimeErrors
        line = next((text for text in str(error).splitlines() if text.strip()), "unreadable")
        raise ArgumentError(
            f"The body of {operator} cannot be read: {line.strip()}. Write it as in "
            "'Double (x) => (y) { y = Add (x, x) }'."
        ) from None
