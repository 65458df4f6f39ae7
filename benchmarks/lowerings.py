"""Every spelling of every operator: its cost and its error, side by side.

python benchmarks/lowerings.py [--operator mish] [--opset 20] [--runs 15] [--renew]

Costs are run times on ONNX Runtime's CPU provider at [8, 64, 112, 112], as multiples of the
operator's fastest spelling in the same run. The spellings take turns, and each one's fastest turn
counts: other work on the machine can only add. Errors are multiples
of PyTorch's own float32 error against float64 (docs/DESIGN.md, 6.3), the worst of the declared
inputs. --renew writes them to export/lowering/measured_costs.json, which decides what an export
takes; with --operator only those rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from measure import describe_machine

from dlzoo.export.lowering import costs
from dlzoo.export.lowering.kernels import kernel_status
from dlzoo.export.lowering.operators import OPERATORS
from dlzoo.export.lowering.registry import Lowering
from dlzoo.export.lowering.samples import TIMED_SHAPE, declared_inputs, samples_of
from dlzoo.export.onnx_from_torch import onnx_from_torch

#: float32's. Source: docs/DESIGN.md, 6.3.
UNIT_ROUNDOFF = 2.0**-24


def open_spelling(
    lowering: Lowering, module: torch.nn.Module, example: torch.Tensor, opset: int
) -> onnxruntime.InferenceSession:
    """A session of one module, its operator spelled so.

    Raises:
        ExportError: this call cannot be spelled so.
    """
    chosen = {} if lowering.translate is None else {lowering.operator: lowering.key}
    graph = onnx_from_torch(
        module, {"x": example}, output_names=["y"], opset=opset, lowerings=chosen
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # without a word on kernels that are expanded
    with tempfile.TemporaryDirectory() as folder:
        graph.save(Path(folder, "model.onnx"))
        return onnxruntime.InferenceSession(Path(folder, "model.onnx"), options)


def opset_of(lowering: Lowering, opset: int) -> int:
    """``opset``, or the nearest that the spelling has."""
    return min(max(opset, lowering.min_opset), lowering.max_opset)


def measure_error(lowering: Lowering, opset: int) -> float | None:
    """The largest error of a spelling, as a multiple of PyTorch's own; None if no call can be."""
    from dlzoo.errors import ExportError

    worst = None
    for sample in samples_of(lowering.operator):
        try:
            session = open_spelling(lowering, sample.module, sample.example, opset)
        except ExportError:
            continue
        for x in declared_inputs().values():
            (got,) = session.run(None, {"x": x.numpy()})
            with torch.no_grad():
                own = sample.module(x).double().numpy()
                exact = sample.module.double()(x.double()).numpy()
            sample.module.float()
            for norm in (lambda e: np.sqrt(np.mean(e**2)), lambda e: np.abs(e).max()):
                floor = max(norm(own - exact), UNIT_ROUNDOFF * norm(exact))
                error = norm(got.astype(np.float64) - exact)
                worst = max(worst or 0.0, float(error / floor) if floor else 0.0)
    return worst


def measure_seconds(operator: str, opset: int, num_runs: int) -> dict[str, float]:
    """Shortest run time of each spelling of an operator, the spellings taking turns."""
    from dlzoo.errors import ExportError

    (sample, *_) = samples_of(operator, TIMED_SHAPE)
    sessions = {}
    for lowering in OPERATORS[operator].lowerings:
        version = opset_of(lowering, opset)
        if "missing" in {kernel_status(name, version, "ort-cpu") for name in lowering.onnx}:
            continue
        try:
            sessions[lowering.key] = open_spelling(
                lowering, sample.module, sample.example, version
            )
        except ExportError:
            continue
    x = sample.example.numpy()
    seconds: dict[str, list[float]] = {key: [] for key in sessions}
    for _ in range(num_runs + 1):
        for key, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"x": x})
            seconds[key].append(time.perf_counter() - start)
    # The first run allocates.
    return {key: min(runs[1:]) for key, runs in seconds.items()}


def main() -> None:
    """Print the table; with --renew write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operator", action="append")
    parser.add_argument("--opset", type=int, default=20)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--renew", action="store_true")
    arguments = parser.parse_args()
    names = arguments.operator or [
        name for name, operator in OPERATORS.items() if samples_of(name) and operator.is_choice
    ]
    rows = dict(costs.measured_costs()["operators"])
    print(describe_machine())
    print(f"ONNX Runtime CPU, {list(TIMED_SHAPE)}, opset {arguments.opset} or the nearest")
    for name in names:
        seconds = measure_seconds(name, arguments.opset, arguments.runs)
        fastest = min(seconds.values())
        rows[name] = {}
        for lowering in OPERATORS[name].lowerings:
            if lowering.key not in seconds:
                continue
            error = measure_error(lowering, opset_of(lowering, arguments.opset))
            cost = seconds[lowering.key] / fastest
            rows[name][lowering.key] = {
                "cost": {"ort-cpu": round(cost, 2)},
                "error": None if error is None else round(error, 2),
            }
            print(
                f"{name:<28}{lowering.key:<28}{seconds[lowering.key] * 1e3:>8.1f} ms"
                f"{cost:>7.2f} x  error {'-' if error is None else f'{error:.2f}'}"
            )
    if arguments.renew:
        document = {
            "measured_with": describe_machine(),
            "opset": arguments.opset,
            "shape": list(TIMED_SHAPE),
            "operators": {name: rows[name] for name in sorted(rows)},
        }
        costs.COSTS_PATH.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {costs.COSTS_PATH.name}")


if __name__ == "__main__":
    main()
