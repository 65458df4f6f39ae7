"""Mish on ONNX Runtime's CPU provider: the native kernel against its other spellings.

    python benchmarks/mish_kernel.py [--shape 8x64x112x112] [--runs 15] [--threads 1 2]

Every way runs once, then all again in turns; medians and their ratios in one run are what counts.
The error is the root mean square over N(0, 1), in multiples of PyTorch's own in float32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx.parser
import onnx_ir as ir
import onnxruntime
import torch
from measure import describe_machine

from dlzoo.export.lowering.function_body import attach_functions
from dlzoo.export.lowering.native.build import build_library
from dlzoo.runtime.session.custom_ops import find_native_library, register_native_library

_HEAD = (
    '<ir_version: 10, opset_import: ["" : 20, "dlzoo" : 1]>\nmish (float[n] x) => (float[n] y)'
)
_GRAPHS = {
    "function": "y = dlzoo.Mish (x)",
    "exporter's own": "y = Mish (x)",
    "sigmoid form": "m = Neg (x) s = Sigmoid (m) t = Mul (s, s) a = Sub (one, t) "
    "b = Add (one, t) c = Mul (x, a) y = Div (c, b)",
}

Run = Callable[[], object]


def model_of(body: str) -> bytes:
    """A graph in onnx.parser's syntax, with the bodies of functions of domain ``dlzoo``."""
    one = "<float one = {1.0}>" if "one" in body else ""
    model = ir.from_proto(onnx.parser.parse_model(f"{_HEAD} {one} {{ {body} }}"))
    attach_functions(model)
    data: bytes = ir.to_proto(model).SerializeToString()
    return data


def open_run(
    model: bytes, library: Path | None, x: npt.NDArray[np.float32], num_threads: int
) -> tuple[Run, npt.NDArray[np.float32]]:
    """A call that runs the model once, and the array that it writes to."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    if library is not None:
        found = find_native_library(library)
        assert found is not None
        register_native_library(options, found)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    y = np.empty_like(x)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    bound = onnxruntime.OrtValue.ortvalue_from_numpy(y)
    binding.bind_ortvalue_output("y", bound)

    def run() -> None:
        session.run_with_iobinding(binding)

    run()
    return run, bound.numpy()


def measure(runs: dict[str, Run], num_runs: int) -> dict[str, float]:
    """Median milliseconds of each, run in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(num_runs):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def rms(error: npt.NDArray[Any]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def main() -> None:
    """Print a table for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="8x64x112x112")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    size = int(np.prod([int(part) for part in arguments.shape.split("x")]))
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    layer = torch.nn.functional.mish
    reference = layer(torch.tensor(x, dtype=torch.float64)).numpy()
    floor = rms(layer(torch.tensor(x)).numpy() - reference)

    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        library = build_library(Path(folder) / "kernels.so")
        found = find_native_library(library)
        assert found is not None
        for num_threads in arguments.threads:
            torch.set_num_threads(num_threads)
            runs: dict[str, Run] = {}
            errors: dict[str, float] = {}
            for name, body in {"native kernel": _GRAPHS["function"], **_GRAPHS}.items():
                kernels = library if name == "native kernel" else None
                runs[name], y = open_run(model_of(body), kernels, x, num_threads)
                errors[name] = rms(y.astype(np.float64) - reference) / floor
            runs["PyTorch"] = partial(layer, torch.tensor(x))
            errors["PyTorch"] = 1.0
            medians = measure(runs, arguments.runs)
            print(
                f"\n[{arguments.shape}] float32, {num_threads} threads, {found.instructions}"
            )
            print(f"{'':16}{'ms':>8}{'times kernel':>14}{'rms error':>11}")
            for name, median_ms in medians.items():
                ratio = median_ms / medians["native kernel"]
                print(f"{name:16}{median_ms:8.1f}{ratio:14.1f}{errors[name]:11.2f}")


if __name__ == "__main__":
    main()
