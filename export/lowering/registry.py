"""Which spellings an operator has, and which of them an export takes.

native       one operator of ONNX
decomposed   several of them
function     one node of domain ``dlzoo`` with its body in the same file (FunctionProto)
contrib      an operator of ONNX Runtime's own domain, ``com.microsoft``
custom       one node of domain ``dlzoo`` that needs a library of kernels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dlzoo.errors import ArgumentError, ExportError
from dlzoo.export.lowering.costs import cost_of, failed_accuracy
from dlzoo.export.lowering.kernels import Target, missing_operator, require_target

Spelling = Literal["native", "decomposed", "function", "contrib", "custom"]
SPELLINGS: tuple[Spelling, ...] = get_args(Spelling)

#: What domain our functions and custom operators live in, and its version.
DOMAIN, DOMAIN_VERSION = "dlzoo", 1
LOWEST_OPSET, HIGHEST_OPSET = 11, 25
#: A spelling must be measured this much faster to be taken before one that is registered
#: earlier: less than that changes from run to run.
_WORTH_CHANGING = 0.8


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """One spelling of one operator.

    ``translate`` has the parameters of the torch operator and calls ``onnxscript`` operators; None
    leaves the call to the exporter, whose own spelling this is. ``refuses`` takes the same
    arguments and says why a call cannot be spelled so, or nothing; ``inexact_for`` likewise why a
    call of such sizes would be too inexact on ONNX Runtime's CPU provider. ``form`` tells spellings
    of the same kind apart. ``body`` is the text of a function's body, for ``spelling="function"``.
    """

    operator: str
    spelling: Spelling
    onnx: tuple[str, ...]
    translate: Callable[..., Any] | None = None
    form: str = ""
    min_opset: int = LOWEST_OPSET
    max_opset: int = HIGHEST_OPSET
    refuses: Callable[..., str] | None = None
    inexact_for: Callable[..., str] | None = None
    body: str = ""
    note: str = ""

    @property
    def key(self) -> str:
        """``native``, or ``decomposed:sigmoid`` where there are several."""
        return f"{self.spelling}:{self.form}" if self.form else self.spelling

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` is this key or its part before the colon."""
        return name in (self.key, self.spelling)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator of PyTorch that is more than one node, or could be.

    ``torch_operators`` are names as in ``aten.mish.default``. ``is_meant`` decides by a call's
    arguments, where one torch operator stands for several (GELU with erf and with tanh).
    ``torch_function`` is a Python function in whose place ``replacement`` is traced: it calls one of
    ``torch_operators`` where ``torch.export`` would see the function's parts.
    """

    name: str
    torch_operators: tuple[str, ...]
    formula: str
    is_meant: Callable[..., bool] | None = None
    torch_function: Callable[..., Any] | None = None
    replacement: Callable[..., Any] | None = None
    lowerings: list[Lowering] = field(default_factory=list)

    @property
    def is_choice(self) -> bool:
        """Whether there is more than one spelling."""
        return len(self.lowerings) > 1


@dataclass(frozen=True)
class Choice:
    """A lowering, and why it was taken."""

    lowering: Lowering
    reason: str


OPERATORS: dict[str, Operator] = {}


def add_operator(operator: Operator, *lowerings: Lowering) -> None:
    """Enter an operator with its spellings, the one to prefer where nothing is measured first.

    Raises:
        ArgumentError: the name is taken.
    """
    if operator.name in OPERATORS:
        raise ArgumentError(
            f"Lowering {operator.name!r} is registered already. Choose another name."
        )
    operator.lowerings.extend(lowerings)
    OPERATORS[operator.name] = operator


def parse_overrides(texts: Sequence[str], operators: Mapping[str, Operator]) -> dict[str, str]:
    """``["mish=function"]`` as ``{"mish": "function"}``.

    Raises:
        ArgumentError: no such operator, or it has no such spelling.
    """
    overrides: dict[str, str] = {}
    for text in texts:
        name, _, key = text.partition("=")
        if name not in operators:
            raise ArgumentError(
                f"`lowerings` got {text!r}, expected OPERATOR=SPELLING with an operator of "
                f"{', '.join(sorted(operators))}. Write for example `lowerings=mish=function`."
            )
        keys = [lowering.key for lowering in operators[name].lowerings]
        if not any(lowering.answers_to(key) for lowering in operators[name].lowerings):
            raise ArgumentError(
                f"`lowerings` got {text!r}, expected one of "
                f"{', '.join(f'{name}={known}' for known in keys)}. "
                'Run "dlzoo ops" to see every spelling.'
            )
        overrides[name] = key
    return overrides


def why_not(
    lowering: Lowering, opset: int, target: Target, call: tuple[Any, Any] | None = None
) -> str:
    """Why a spelling is out of the question; empty where it is not.

    Args:
        lowering: the spelling.
        opset: that is asked for.
        target: where the model will run.
        call: the arguments of the call, positional and by name.
    """
    if opset < lowering.min_opset:
        return f"needs opset {lowering.min_opset}"
    if opset > lowering.max_opset:
        return f"ends with opset {lowering.max_opset}"
    if target == "portable" and lowering.spelling in ("contrib", "custom"):
        return f"{lowering.spelling} operators are not portable"
    missing = missing_operator(lowering.onnx, opset, target)
    if missing:
        return f"{target} has no {missing} at opset {opset}"
    if call is not None and lowering.refuses is not None:
        return lowering.refuses(*call[0], **call[1])
    return ""


def choose_lowering(
    operator: Operator,
    opset: int,
    target: Target = "ort-cpu",
    overrides: Mapping[str, str] | None = None,
    call: tuple[Any, Any] | None = None,
) -> Choice:
    """The spelling to take: what was asked for, else the fastest that works.

    Args:
        operator: from :data:`OPERATORS`.
        opset: that is asked for.
        target: where the model will run.
        overrides: operator -> spelling, as the user asked for them.
        call: the arguments of the call, positional and by name.

    Raises:
        ExportError: no spelling works, or not the one asked for.
    """
    require_target(target)
    asked = (overrides or {}).get(operator.name)
    reasons = {
        lowering.key: why_not(lowering, opset, target, call)
        for lowering in operator.lowerings
        if asked is None or lowering.answers_to(asked)
    }
    usable = [low for low in operator.lowerings if reasons.get(low.key) == ""]
    if not usable:
        text = "; ".join(f"{key} {reason}" for key, reason in reasons.items())
        lowest = [
            candidate
            for candidate in range(opset + 1, HIGHEST_OPSET + 1)
            if any(not why_not(low, candidate, target, call) for low in operator.lowerings)
        ]
        fix = f"The lowest opset that works is {lowest[0]}" if lowest else "Replace that layer"
        raise ExportError(
            f"{operator.name} cannot be spelled at opset {opset} for {target}: {text}. {fix}."
            if asked is None
            else f"The lowering {operator.name}={asked} cannot be delivered at opset {opset} for "
            f"{target}: {text}. Leave it out, or choose another spelling."
        )
    if asked is None:
        # An inexact spelling is better than none, and the proof has the last word.
        inexact = {
            low.key: why for low in usable if (why := _why_inexact(low, target, call)) != ""
        }
        if len(inexact) < len(usable):
            reasons |= inexact
            usable = [low for low in usable if low.key not in inexact]
    chosen = usable[0]
    for lowering in usable[1:]:
        ours, best = _cost(lowering, target), _cost(chosen, target)
        if ours is not None and best is not None and ours < best * _WORTH_CHANGING:
            chosen = lowering
    if asked is not None:
        return Choice(chosen, f"asked for: {operator.name}={asked}")
    return Choice(chosen, _reason(chosen, usable, reasons, target))


def _why_inexact(lowering: Lowering, target: Target, call: tuple[Any, Any] | None) -> str:
    if failed_accuracy(lowering.operator, lowering.key, target):
        return "is less exact"
    # Sizes up to which a spelling is exact were measured on ONNX Runtime's CPU kernels.
    if call is None or lowering.inexact_for is None or target not in ("ort-cpu", "portable"):
        return ""
    return lowering.inexact_for(*call[0], **call[1])


def _cost(lowering: Lowering, target: Target) -> float | None:
    return cost_of(lowering.operator, lowering.key, target)


def _reason(
    chosen: Lowering, usable: Sequence[Lowering], reasons: Mapping[str, str], target: Target
) -> str:
    if len(usable) == 1:
        others = [f"{key} {why}" for key, why in reasons.items() if why]
        return f"the only one that works: {'; '.join(others)}" if others else "the only one"
    measured = _cost(chosen, target) is not None
    against = ", ".join(lowering.key for lowering in usable if lowering is not chosen)
    if measured:
        place = "ort-cpu" if target == "portable" else target
        return f"measured on {place} against {against}"
    return f"not measured on {target}: preferred to {against}"
