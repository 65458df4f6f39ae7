"""The served models: bundles with random weights, inputs, and the session's own answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from in_process import open_session

_NUM_INPUTS = 8
#: Answers to two inputs must differ by this share of the largest value, or a crossed answer would
#: go unnoticed.
_SMALLEST_DIFFERENCE = 1e-2


@dataclass(frozen=True)
class Model:
    """A bundle, the arrays for the clients, and the settings of every session on it."""

    name: str
    bundle: Path
    arrays: Path
    input_name: str
    output_name: str
    num_threads: int

    @property
    def file(self) -> Path:
        """The graph."""
        return self.bundle / "model.onnx"


def prepare_model(name: str, bundles: Path, folder: Path) -> Model:
    """Export a bundle if it is not there yet, and ask the session itself for answers.

    Raises:
        RuntimeError: its answers do not tell its inputs apart.
    """
    bundle = bundles / name
    if not (bundle / "manifest.json").exists():
        bundles.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "dlzoo", "export", name, "--weights", "random"]
        subprocess.run([*command, "-o", str(bundle)], check=True, stdout=sys.stderr)
    manifest = json.loads((bundle / "manifest.json").read_text())
    tensor = manifest["inputs"][0]
    # Waking other threads would take longer than a run of LeNet-5.
    num_threads = 1 if name.startswith("lenet") else os.cpu_count() or 1
    session = open_session(bundle / "model.onnx", num_threads, spins=False)
    sizes = session.get_inputs()[0].shape[1:]
    x = np.random.default_rng(0).standard_normal((_NUM_INPUTS, *sizes)).astype(np.float32)
    y = np.concatenate([session.run(None, {tensor["name"]: each[None]})[0] for each in x])
    differences = [
        np.abs(one - other).max() / np.abs(y).max()
        for i, one in enumerate(y)
        for other in y[:i]
    ]
    if min(differences) < _SMALLEST_DIFFERENCE:
        raise RuntimeError(f"{name} answers alike to different inputs: {min(differences):g}")
    arrays = folder / f"{name}.npz"
    np.savez(arrays, inputs=x, outputs=y)
    return Model(
        name, bundle, arrays, tensor["name"], session.get_outputs()[0].name, num_threads
    )
