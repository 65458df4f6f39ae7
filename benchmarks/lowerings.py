"""Every spelling of every operator: its cost and its error, side by side.

python benchmarks/lowerings.py [--operator mish] [--opset 20] [--runs 15]
                               [--openvino PYTHON] [--renew]

Costs are run times on ONNX Runtime's CPU provider at [8, 64, 112, 112], as multiples of the
operator's fastest spelling in the same run; with --openvino on OpenVINO's CPU plugin in float32,
too (PYTHON is that of an environment that has openvino and numpy). The spellings take turns, and
each one's fastest turn counts: other work on the machine can only add. Errors are multiples of
PyTorch's own float32 error against float64 (docs/DESIGN.md, 6.3), the worst of the declared
inputs. --renew writes them to export/lowering/measured_costs.json, which decides what an export
takes; with --operator only those rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graph_runtimes import GraphRuntime, OnnxRuntime, OpenVino
from measure import describe_machine

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.lowering import costs
from dlzoo.export.lowering.kernels import kernel_status
from dlzoo.export.lowering.operators import OPERATORS
from dlzoo.export.lowering.registry import Lowering
from dlzoo.export.lowering.samples import TIMED_SHAPE, declared_inputs, samples_of

#: float32's. Source: docs/DESIGN.md, 6.3.
UNIT_ROUNDOFF = 2.0**-24


def write_spelling(
    path: Path, lowering: Lowering, module: torch.nn.Module, example: torch.Tensor, opset: int
) -> bool:
    """Write a graph of one module, its operator spelled so; False if it cannot be spelled so."""
    from dlzoo.errors import ExportError

    chosen = {} if lowering.translate is None else {lowering.operator: lowering.key}
    try:
        graph = onnx_from_torch(
            module, {"x": example}, output_names=["y"], opset=opset, lowerings=chosen
        )
    except ExportError:
        return False
    graph.save(path)
    return True


def opset_of(lowering: Lowering, opset: int) -> int:
    """``opset``, or the nearest that the spelling has."""
    return min(max(opset, lowering.min_opset), lowering.max_opset)


def is_missing(lowering: Lowering, opset: int, target: str) -> bool:
    """Whether a target has no way to run what the spelling is made of."""
    return "missing" in {kernel_status(name, opset, target) for name in lowering.onnx}  # type: ignore[arg-type]


def measure_error(runtime: GraphRuntime, lowering: Lowering, opset: int) -> float | None:
    """The largest error of a spelling, as a multiple of PyTorch's own; None if no call can be."""
    worst = None
    for sample in samples_of(lowering.operator):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            if not write_spelling(path, lowering, sample.module, sample.example, opset):
                continue
            inputs = list(declared_inputs().values())
            answers = runtime.outputs(path, [x.numpy() for x in inputs])
        for x, got in zip(inputs, answers or [], strict=False):
            with torch.no_grad():
                own = sample.module(x).double().numpy()
                exact = sample.module.double()(x.double()).numpy()
            sample.module.float()
            for norm in (lambda e: np.sqrt(np.mean(e**2)), lambda e: np.abs(e).max()):
                floor = max(norm(own - exact), UNIT_ROUNDOFF * norm(exact))
                error = norm(got.astype(np.float64) - exact)
                worst = max(worst or 0.0, float(error / floor) if floor else 0.0)
    return worst


def measure_seconds(
    runtime: GraphRuntime, operator: str, opset: int, num_runs: int
) -> dict[str, float]:
    """Shortest run time of each spelling of an operator, the spellings taking turns."""
    (sample, *_) = samples_of(operator, TIMED_SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        for number, lowering in enumerate(OPERATORS[operator].lowerings):
            version = opset_of(lowering, opset)
            path = Path(folder, f"{number}.onnx")
            if not is_missing(lowering, version, runtime.target) and write_spelling(
                path, lowering, sample.module, sample.example, version
            ):
                models[lowering.key] = path
        return runtime.seconds(models, sample.example.numpy(), num_runs)


def measure(
    runtime: GraphRuntime,
    names: Sequence[str],
    rows: dict[str, Any],
    opset: int,
    num_runs: int,
) -> None:
    """Print the costs and errors of operators on a runtime, and put them into ``rows``."""
    print(f"{runtime.target}, {list(TIMED_SHAPE)}, opset {opset} or the nearest")
    for name in names:
        seconds = measure_seconds(runtime, name, opset, num_runs)
        if not seconds:
            continue
        fastest = min(seconds.values())
        for lowering in OPERATORS[name].lowerings:
            if lowering.key not in seconds:
                continue
            error = measure_error(runtime, lowering, opset_of(lowering, opset))
            cost = seconds[lowering.key] / fastest
            row = rows.setdefault(name, {}).setdefault(lowering.key, {"cost": {}, "error": {}})
            row["cost"][runtime.target] = round(cost, 2)
            if error is not None:
                row["error"][runtime.target] = round(error, 2)
            print(
                f"{name:<28}{lowering.key:<28}{seconds[lowering.key] * 1e3:>8.1f} ms"
                f"{cost:>7.2f} x  error {'-' if error is None else f'{error:.2f}'}"
            )


def main() -> None:
    """Print the table; with --renew write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operator", action="append")
    parser.add_argument("--opset", type=int, default=20)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--openvino", type=Path, help="a Python that has openvino")
    parser.add_argument("--renew", action="store_true")
    arguments = parser.parse_args()
    names = arguments.operator or [
        name for name, operator in OPERATORS.items() if samples_of(name) and operator.is_choice
    ]
    old = costs.measured_costs()
    # What is measured now is forgotten first; the other rows stay as they were.
    rows = {name: {} if name in names else row for name, row in old["operators"].items()}
    machine = describe_machine()
    runtimes: list[GraphRuntime] = [OnnxRuntime()]
    if arguments.openvino is not None:
        runtimes.append(openvino := OpenVino(arguments.openvino))
        machine += f", openvino {openvino.version}"
    print(machine)
    for runtime in runtimes:
        measure(runtime, names, rows, arguments.opset, arguments.runs)
    if arguments.renew:
        document = {
            "measured_with": machine,
            "opset": arguments.opset,
            "shape": list(TIMED_SHAPE),
            "operators": {name: rows[name] for name in sorted(rows)},
        }
        costs.COSTS_PATH.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {costs.COSTS_PATH.name}")


if __name__ == "__main__":
    main()
