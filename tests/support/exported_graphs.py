"""Exported graphs, run by ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnxruntime
from torch import Tensor

from dlzoo.export.graph.onnx_graph import OnnxGraph

#: Three float32 sums of a few hundred products of about 1.
SMALL_ERROR = 1e-5


def run_graph(graph: OnnxGraph, path: Path, **inputs: Tensor) -> list[np.ndarray]:
    graph.save(path / "model.onnx")
    session = onnxruntime.InferenceSession(path / "model.onnx")
    return session.run(None, {name: x.numpy() for name, x in inputs.items()})
