"""What runs a graph to be timed: ONNX Runtime in this process, OpenVINO in one of another Python."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]


class GraphRuntime(Protocol):
    """Runs .onnx files of one input ``x`` and one output on the CPU, in float32."""

    #: The target of an export that it stands for.
    target: str

    def outputs(self, model: Path, inputs: Sequence[Array]) -> list[Array] | None:
        """The answer to each input; None where the runtime does not take the graph."""

    def seconds(self, models: Mapping[str, Path], x: Array, num_runs: int) -> dict[str, float]:
        """The shortest run of each graph, the graphs taking turns."""


class OnnxRuntime:
    """ONNX Runtime's CPU provider."""

    target = "ort-cpu"

    def outputs(self, model: Path, inputs: Sequence[Array]) -> list[Array] | None:
        """The answer to each input."""
        session = _session(model)
        return [session.run(None, {"x": x})[0] for x in inputs]

    def seconds(self, models: Mapping[str, Path], x: Array, num_runs: int) -> dict[str, float]:
        """The shortest run of each graph, the graphs taking turns."""
        sessions = {key: _session(path) for key, path in models.items()}
        seconds: dict[str, list[float]] = {key: [] for key in sessions}
        for _ in range(num_runs):
            for key, session in sessions.items():
                # Once untimed: the first run allocates, and the graph before left the caches cold.
                session.run(None, {"x": x})
                start = time.perf_counter()
                session.run(None, {"x": x})
                seconds[key].append(time.perf_counter() - start)
        return {key: min(runs) for key, runs in seconds.items()}


class OpenVino:
    """OpenVINO's CPU plugin with float32 asked for, in an environment that has it."""

    target = "openvino"

    def __init__(self, python: Path) -> None:
        command = [python, Path(__file__).with_name("openvino_worker.py")]
        self._worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version: str = self._ask({"do": "version"})

    def close(self) -> None:
        """End its process."""
        self._worker.communicate()

    def outputs(self, model: Path, inputs: Sequence[Array]) -> list[Array] | None:
        """The answer to each input; None where OpenVINO does not take the graph."""
        with tempfile.TemporaryDirectory() as folder:
            x, y = Path(folder, "x.npz"), Path(folder, "y.npz")
            np.savez(x, *inputs)
            if not self._ask({"do": "outputs", "model": str(model), "x": str(x), "y": str(y)}):
                return None
            with np.load(y) as answers:
                return [answers[name] for name in answers.files]

    def seconds(self, models: Mapping[str, Path], x: Array, num_runs: int) -> dict[str, float]:
        """The shortest run of each graph that OpenVINO takes, the graphs taking turns."""
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder, "x.npz"), x)
            paths = {key: str(path) for key, path in models.items()}
            request = {
                "do": "seconds",
                "models": paths,
                "x": f"{folder}/x.npz",
                "runs": num_runs,
            }
            found: dict[str, float] = self._ask(request)
            return found

    def _ask(self, request: Mapping[str, object]) -> Any:
        assert self._worker.stdin is not None and self._worker.stdout is not None
        self._worker.stdin.write(json.dumps(request) + "\n")
        self._worker.stdin.flush()
        line = self._worker.stdout.readline()
        if not line:
            raise RuntimeError("OpenVINO's process ended; what it said is above")
        return json.loads(line)


def _session(model: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # without a word on kernels that are expanded
    return onnxruntime.InferenceSession(model, options)
