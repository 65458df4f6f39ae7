"""Operator x spelling x opset: as exact as PyTorch's own float32, NaN and Inf where they belong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.lowering.costs import ERROR_LIMIT, failed_accuracy
from dlzoo.export.lowering.operators import OPERATORS
from dlzoo.export.lowering.registry import Lowering, why_not
from dlzoo.export.lowering.samples import (
    COMPARED_SHAPE,
    declared_inputs,
    non_finite_inputs,
    samples_of,
)

#: float32's. Source: docs/DESIGN.md, 6.3.
UNIT_ROUNDOFF = 2.0**-24
#: Spellings of these choose by the sizes of the image; tests/export/lowering/operators/test_adaptive_pool.py.
BY_SIZE = ("adaptive_avg_pool2d", "adaptive_max_pool2d")
#: ONNX Runtime's CPU MaxPool loses a NaN: runtime/proof/divergence.py.
LOSES_NAN = ("max_pool2d",)
LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class SideBySide(nn.Module):
    """Gives what each module makes of the one input."""

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [part(x) for part in self.parts]


def norms() -> tuple[Callable[[np.ndarray], float], ...]:
    return (
        lambda e: float(np.sqrt(np.mean(np.square(e)))),
        lambda e: float(np.abs(e).max(initial=0)),
    )


def wrong_outputs(
    names: list[str], module: SideBySide, path: Path, judged: set[str]
) -> list[str]:
    """Each output that is too inexact or not finite where it should be, in words."""
    wrong = []
    for level, optimization in LEVELS.items():
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = optimization
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options)
        for kind, x in {**declared_inputs(), **non_finite_inputs()}.items():
            outputs = session.run(None, {"x": x.numpy()})
            with torch.no_grad():
                own = [y.double().numpy() for y in module.float()(x)]
                exact = [y.numpy() for y in module.double()(x.double())]
            module.float()
            for name, got, t, y in zip(names, outputs, own, exact, strict=True):
                assert got.shape == y.shape, name
                where = f"{name}, {level}, {kind}"
                finite = np.isfinite(y)
                if not name.startswith(LOSES_NAN) and not (
                    np.array_equal(np.isnan(got), np.isnan(y))
                    and np.array_equal(np.isposinf(got), np.isposinf(y))
                ):
                    wrong.append(f"{where}: NaN or Inf elsewhere")
                elif name in judged and kind in declared_inputs():
                    for norm in norms():
                        floor = max(norm((t - y)[finite]), UNIT_ROUNDOFF * norm(y[finite]))
                        error = norm((got - y)[finite])
                        if error > ERROR_LIMIT * floor:
                            wrong.append(f"{where}: {error:.1e}, PyTorch {floor:.1e}")
    return wrong


def export(
    modules: list[nn.Module], path: Path, opset: int, lowerings: dict[str, str]
) -> SideBySide:
    module = SideBySide(modules).eval()
    graph = onnx_from_torch(
        module,
        {"x": torch.randn(COMPARED_SHAPE)},
        output_names=[f"y{number}" for number in range(len(modules))],
        opset=opset,
        dynamic_axes={"x": {0: "batch"}},
        lowerings=lowerings,
    )
    graph.save(path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == opset
    return module


@pytest.mark.parametrize(
    "opset",
    [
        *(11, 17, 20),
        *(pytest.param(opset, marks=pytest.mark.slow) for opset in (12, 13, 14, 15, 16)),
        *(pytest.param(opset, marks=pytest.mark.slow) for opset in (18, 19, 21, 22, 23, 24)),
    ],
)
def test_every_operator_is_exact_at(opset: int, tmp_path: Path) -> None:
    names, modules = [], []
    for operator in OPERATORS:
        for number, sample in enumerate(samples_of(operator)):
            names.append(f"{operator} {number}")
            modules.append(sample.module)
    module = export(modules, tmp_path / "model.onnx", opset, {})
    assert wrong_outputs(names, module, tmp_path / "model.onnx", set(names)) == []


def spellings_at(opset: int) -> list[dict[str, Lowering]]:
    """Sets of spellings that together hold every one that this opset has."""
    per_operator = {
        name: [
            lowering
            for lowering in operator.lowerings
            if lowering.translate is not None and not why_not(lowering, opset, "ort-cpu")
        ]
        for name, operator in OPERATORS.items()
        if name not in BY_SIZE and samples_of(name)
    }
    num_rounds = max(len(lowerings) for lowerings in per_operator.values())
    return [
        {name: lows[number] for name, lows in per_operator.items() if number < len(lows)}
        for number in range(num_rounds)
    ]


@pytest.mark.parametrize(
    ("opset", "number"),
    [(opset, n) for opset in (11, 24) for n in range(len(spellings_at(opset)))],
)
def test_every_spelling_is_exact(opset: int, number: int, tmp_path: Path) -> None:
    chosen = spellings_at(opset)[number]
    names, modules = [], []
    for name in chosen:
        # The first sample is one that every spelling takes.
        names.append(name)
        modules.append(samples_of(name)[0].module)
    asked = {name: lowering.key for name, lowering in chosen.items()}
    module = export(modules, tmp_path / "model.onnx", opset, asked)
    judged = {name for name, key in asked.items() if not failed_accuracy(name, key, "ort-cpu")}
    assert wrong_outputs(names, module, tmp_path / "model.onnx", judged) == []


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    module = export([nn.SiLU(), nn.Mish()], tmp_path / "model.onnx", 20, {})
    module.parts[0] = nn.Hardswish()
    wrong = wrong_outputs(["silu", "mish"], module, tmp_path / "model.onnx", {"silu", "mish"})
    assert wrong and all(line.startswith("silu, ") for line in wrong)
