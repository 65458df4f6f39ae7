"""The table operator x opset x target: what there is, what is taken, and what it was measured at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dlzoo.errors import ExportError
from dlzoo.export.lowering.costs import cost_of, error_of, measured_costs
from dlzoo.export.lowering.kernels import TARGETS, Target, kernel_status
from dlzoo.export.lowering.operators import OPERATORS
from dlzoo.export.lowering.registry import Lowering, choose_lowering, why_not

#: What dlzoo export takes, from the lowest to the last that the project answers for.
OPSETS = tuple(range(11, 25))
#: Where spellings were timed. What is portable has the first one's numbers.
MEASURED_TARGETS: tuple[Target, ...] = ("ort-cpu", "openvino")


@dataclass(frozen=True)
class TableRow:
    """One spelling of one operator.

    ``usable`` and ``taken`` hold opsets by target; a call that the spelling cannot express goes
    to the next best. ``costs`` are multiples of the operator's fastest spelling, ``errors`` of
    PyTorch's own in float32, by the target that they were measured on.
    """

    operator: str
    lowering: Lowering
    usable: dict[Target, tuple[int, ...]]
    taken: dict[Target, tuple[int, ...]]
    expanded: dict[Target, tuple[int, ...]]
    costs: dict[Target, float]
    errors: dict[Target, float]


def operator_table() -> list[TableRow]:
    """Every spelling of every operator, operators in alphabetic order."""
    return [
        _row(name, lowering)
        for name in sorted(OPERATORS)
        for lowering in OPERATORS[name].lowerings
    ]


def _row(name: str, lowering: Lowering) -> TableRow:
    usable = {
        target: tuple(o for o in OPSETS if not why_not(lowering, o, target))
        for target in TARGETS
    }
    return TableRow(
        operator=name,
        lowering=lowering,
        usable=usable,
        taken={
            target: tuple(o for o in usable[target] if _is_taken(name, lowering, o, target))
            for target in TARGETS
        },
        expanded={
            target: tuple(
                opset
                for opset in usable[target]
                if "expanded" in {kernel_status(n, opset, target) for n in lowering.onnx}
            )
            for target in TARGETS
        },
        costs=_measured(cost_of, name, lowering.key),
        errors=_measured(error_of, name, lowering.key),
    )


def _measured(
    what: Callable[[str, str, str], float | None], name: str, key: str
) -> dict[Target, float]:
    values = {target: what(name, key, target) for target in MEASURED_TARGETS}
    return {target: value for target, value in values.items() if value is not None}


def _is_taken(name: str, lowering: Lowering, opset: int, target: Target) -> bool:
    try:
        return choose_lowering(OPERATORS[name], opset, target).lowering is lowering
    except ExportError:
        return False


def opset_range(opsets: Iterable[int]) -> str:
    """Opsets in short.

    >>> opset_range([11, 12, 13, 18]), opset_range([20]), opset_range([])
    ('11-13, 18', '20', '-')
    """
    runs: list[list[int]] = []
    for opset in opsets:
        if runs and opset == runs[-1][1] + 1:
            runs[-1][1] = opset
        else:
            runs.append([opset, opset])
    texts = [str(low) if low == high else f"{low}-{high}" for low, high in runs]
    return ", ".join(texts) or "-"


def markdown_page() -> str:
    """``docs/operators.md``."""
    measured = measured_costs()
    head = ("operator", "spelling", "cost, error", "in OpenVINO", *TARGETS, "note")
    lines = [
        "# Operators and their spellings",
        "",
        'Written by `dlzoo ops --markdown`; a test fails where it is not current. "dlzoo export '
        '--lowering OPERATOR=SPELLING" takes another spelling than the one in bold.',
        "",
        "- The columns of targets hold the opsets (11 to 24) at which a spelling works there, "
        "**bold** those at which it is taken. `†`: no kernel of its own at one of them; the "
        "runtime runs ONNX's definition of the operator, or the function in the file.",
        "- Cost: run time as a multiple of the operator's fastest spelling, on ONNX Runtime's CPU "
        "provider and, in the next column, OpenVINO's in float32, at "
        f"{measured.get('shape', '-')}, opset {measured.get('opset', '-')} or the nearest. Error: "
        "the largest on the declared inputs, as a multiple of PyTorch's own in float32; above 3 a "
        "spelling is taken only where nothing else works.",
        "- A call that a spelling cannot express, such as an even window of LRN, goes to the "
        "next best; the bundle's manifest says what was taken for each layer, and why.",
        "",
        f"Measured with {measured.get('measured_with', 'nothing yet')}.",
        "",
        _markdown_row(head),
        _markdown_row(["---"] * len(head)),
    ]
    lines += [_markdown_row(_cells(row)) for row in operator_table()]
    lines += ["", "## Formulas", "", _markdown_row(("operator", "formula", "torch"))]
    lines += [_markdown_row(["---"] * 3)]
    lines += [
        _markdown_row(
            (f"`{name}`", f"`{operator.formula}`", ", ".join(operator.torch_operators))
        )
        for name, operator in sorted(OPERATORS.items())
    ]
    return "\n".join(lines) + "\n"


def _cells(row: TableRow) -> Sequence[str]:
    places = []
    for target in TARGETS:
        taken, usable = row.taken[target], row.usable[target]
        others = [opset for opset in usable if opset not in taken]
        texts = [f"**{opset_range(taken)}**"] if taken else []
        texts += [opset_range(others)] if others else []
        mark = " †" if row.expanded[target] else ""
        places.append((" ".join(texts) or "-") + mark)
    measured = [
        f"{_number(row.costs.get(target))}, {_number(row.errors.get(target))}"
        for target in MEASURED_TARGETS
    ]
    names = (f"`{row.operator}`", f"`{row.lowering.key}`")
    return (*names, *measured, *places, row.lowering.note)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
