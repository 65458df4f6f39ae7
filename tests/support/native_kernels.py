"""One node of domain ``dlzoo`` as a model, and libraries of kernels, right and wrong ones."""

import shutil
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch

from dlzoo.export.lowering.function_body import attach_functions
from dlzoo.export.lowering.native.build import SOURCES_FOLDER, build_library

Floats = npt.NDArray[np.floating[Any]]
Dims = tuple[int | str, ...]

#: Where Mish is easily wrong: far out, at the edges of exp and of float32, at both zeros.
SPECIAL_VALUES = np.array(
    [
        *(0.0, -0.0, 1e-45, -1e-45, 1e-40, -1e-40, 1.2e-38, -1.2e-38, 1e-30, -1e-30),
        *(0.5, -0.5, -1.1924, 1.0, -1.0, 5.0, -5.0, 10.0, -10.0, 19.9, 20.0, 20.1, -20.0),
        *(-80.0, -87.3, -88.0, -100.0, -103.9, -104.0, -110.0, -111.0, 88.7, 89.0, 104.0),
        *(1e4, -1e4, 1e30, -1e30, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan),
    ],
    dtype=np.float32,
)


def mish_model(
    path: Path,
    *,
    dims: Dims = ("n",),
    opset: int = 20,
    dtype: ir.DataType = ir.DataType.FLOAT,
    num_nodes: int = 1,
    with_body: bool = True,
) -> Path:
    """Write a model that is ``num_nodes`` times Mish, one after the other."""
    x = ir.val("x", dtype, dims)
    value: ir.Value = x
    nodes = []
    for number in range(num_nodes):
        node = ir.Node("dlzoo", "Mish", [value], name=f"mish_{number}")
        (value,) = node.outputs
        value.name = f"y_{number}"
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(dims)
        nodes.append(node)
    graph = ir.Graph([x], [value], nodes=nodes, opset_imports={"": opset}, name="mish")
    model = ir.Model(graph, ir_version=8)
    attach_functions(model)
    if not with_body:
        model.functions.clear()
    proto = ir.to_proto(model)
    if with_body:
        onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return path


def mish_float64(x: Floats) -> Floats:
    """PyTorch's answer in float64: what every other way is judged by."""
    answer: Floats = torch.nn.functional.mish(torch.tensor(x, dtype=torch.float64)).numpy()
    return answer


#: Between these, float32 loses Mish's digits in different ways: denormal results, exp that
#: decides, both terms, the identity.
_RANGES = (-110.0, -87.0, -20.0, -5.0, -1.0, 1.0, 20.0, 1e4)


@cache
def _worst_steps_of_pytorch() -> Floats:
    """PyTorch's worst error in each of the ranges, in steps of float32 at the result."""
    worst = [0.5]  # below and above all: exact, so as good as it gets is half a step
    for low, high in pairwise(_RANGES):
        x = np.linspace(low, high, 100_001, dtype=np.float32)
        reference = mish_float64(x)
        answer = torch.nn.functional.mish(torch.tensor(x)).numpy().astype(np.float64)
        worst.append(max(0.5, float((np.abs(answer - reference) / _step(reference)).max())))
    return np.array([*worst, 0.5])


def _step(reference: Floats) -> Floats:
    """The distance to the next number of float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        step: Floats = np.abs(np.spacing(reference.astype(np.float32))).astype(np.float64)
    return step


def mish_float32_error(x: Floats, reference: Floats) -> Floats:
    """What PyTorch's float32 layer may be wrong by at each of these inputs."""
    steps = _worst_steps_of_pytorch()[np.digitize(np.nan_to_num(x, nan=0.0), _RANGES)]
    error: Floats = steps * _step(reference)
    return error


def changed_library(
    folder: Path, change: Callable[[str], str], *, source: str = "mish.cc", **versions: int
) -> Path:
    """Build a library from sources of which one was changed."""
    sources = folder / "sources"
    shutil.copytree(SOURCES_FOLDER, sources, ignore=shutil.ignore_patterns("*.so", "*.dylib"))
    text = (sources / source).read_text()
    changed = change(text)
    assert changed != text, "the change changed nothing"
    (sources / source).write_text(changed)
    return build_library(folder / "changed.so", sources=sources, **versions)
