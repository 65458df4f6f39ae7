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
    """The table: ``operators`` by name, then by spelling, with ``cost`` and ``error``."""
    document: dict[str, Any] = json.loads(COSTS_PATH.read_text(encoding="utf-8"))
    return document


def cost_of(operator: str, key: str, target: str) -> float | None:
    """Run time of a spelling as a multiple of its fastest one's; None where it was not measured.

    What is portable is measured where we can: on ONNX Runtime's CPU provider.
    """
    place = "ort-cpu" if target == "portable" else target
    found = _row(operator, key).get("cost", {}).get(place)
    return None if found is None else float(found)


def error_of(operator: str, key: str) -> float | None:
    """Largest error as a multiple of PyTorch's own in float32; None where it was not measured."""
    found = _row(operator, key).get("error")
    return None if found is None else float(found)


def failed_accuracy(operator: str, key: str) -> bool:
    """Whether a spelling was measured to be too inexact to be taken."""
    error = error_of(operator, key)
    return error is not None and error > ERROR_LIMIT


def _row(operator: str, key: str) -> dict[str, Any]:
    row: dict[str, Any] = measured_costs()["operators"].get(operator, {}).get(key, {})
    return row
