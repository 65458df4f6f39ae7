"""What each spelling was measured to cost: ``measured_costs.json`` beside this file.

``python benchmarks/lowerings.py --renew`` writes it anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

COSTS_PATH = Path(__file__).with_name("measured_costs.json")
#: float32's own error times this is what a spelling may have. Source: docs/DESIGN.md, 6.3.
ERROR_LIMIT = 3.0


@cache
def measured_costs() -> dict[str, Any]:
    """The table: ``operators`` by name, then by spelling, with ``cost`` and ``error`` by target."""
    document: dict[str, Any] = json.loads(COSTS_PATH.read_text(encoding="utf-8"))
    return document


def cost_of(operator: str, key: str, target: str) -> float | None:
    """Run time of a spelling as a multiple of its fastest one's; None where it was not measured."""
    found = _row(operator, key).get("cost", {}).get(_place(target))
    return None if found is None else float(found)


def error_of(operator: str, key: str, target: str) -> float | None:
    """Largest error as a multiple of PyTorch's own in float32; None where it was not measured."""
    found = _row(operator, key).get("error", {}).get(_place(target))
    return None if found is None else float(found)


def failed_accuracy(operator: str, key: str, target: str) -> bool:
    """Whether a spelling was measured to be too inexact to be taken.

    A target that was not measured is judged by ONNX Runtime on the CPU: the arithmetic of a
    spelling is most of its error.
    """
    error = error_of(operator, key, target)
    if error is None:
        error = error_of(operator, key, "ort-cpu")
    return error is not None and error > ERROR_LIMIT


def _place(target: str) -> str:
    """What is portable is measured where we can: on ONNX Runtime's CPU provider."""
    return "ort-cpu" if target == "portable" else target


def _row(operator: str, key: str) -> dict[str, Any]:
    row: dict[str, Any] = measured_costs()["operators"].get(operator, {}).get(key, {})
    return row
