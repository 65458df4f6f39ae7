"""Pooling with ceil_mode keeps an open size open: PyTorch's answer at every size."""

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch

#: Kernel, stride, padding; of the last ones the last window may start beyond the image.
SHAPES = [(3, 2, 0), (3, 1, 1), (2, 2, 0), (2, 3, 0), (3, 3, 1), (2, 2, 1)]


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize(("kernel", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("kind", ["max", "average", "average without padding"])
def test_every_size(
    kind: str, kernel: int, stride: int, padding: int, opset: int, tmp_path: Path
) -> None:
    module: nn.Module
    if kind == "max":
        module = nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)
    else:
        module = nn.AvgPool2d(
            kernel, stride, padding, ceil_mode=True, count_include_pad=kind == "average"
        )
    graph = onnx_from_torch(
        nn.Sequential(module, nn.ReLU()).eval(),
        {"x": torch.zeros(2, 3, 24, 20)},
        output_names=["y"],
        opset=opset,
        dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}},
    )
    graph.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    generator = np.random.default_rng(0)
    smallest = max(1, kernel - 2 * padding - stride + 1)  # an output of 1
    for height, width in itertools.product(range(smallest, smallest + 7), (smallest, 13, 20)):
        x = generator.standard_normal((1, 3, height, width)).astype(np.float32)
        (y,) = session.run(None, {"x": x})
        expected = module(torch.from_numpy(x)).relu().numpy()
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)
