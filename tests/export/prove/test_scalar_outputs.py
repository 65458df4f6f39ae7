"""Every output is proved by itself: a scalar beside a large map, too."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor, nn

import dlzoo
from dlzoo.runtime.bundle.bundle import Bundle, write_manifest
from dlzoo.zoo.sources.input_spec import InputSpec


class Energy(nn.Module):
    """A map, and the sum of squares of its sums over windows of 2 x 2: one number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.conv(x)
        return {"map": y, "energy": F.avg_pool2d(y, 2, divisor_override=1).pow(2).sum()}


@pytest.fixture
def energy(tmp_path: Path) -> Bundle:
    torch.manual_seed(0)
    return dlzoo.export_model(
        Energy().eval(),
        tmp_path / "energy",
        inputs=[InputSpec(name="x", shape=(1, 3, 8, 8))],
        options=dlzoo.ExportOptions(batch=1),
    )


def scale_the_energy(bundle: Bundle, factor: float) -> None:
    path = bundle.model_path
    model = onnx.load(path)
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "energy":
                node.output[i] = "unscaled"
    scale = numpy_helper.from_array(np.array(factor, np.float32), "scale")
    model.graph.initializer.append(scale)
    model.graph.node.append(helper.make_node("Mul", ["unscaled", "scale"], ["energy"]))
    onnx.save(model, path)
    write_manifest(bundle.path, bundle.manifest)


def test_the_clean_graph_passes(energy: Bundle) -> None:
    report = dlzoo.verify(energy)
    assert report, report.explanation
    assert report.power is not None and report.power.blind_outputs == ()


@pytest.mark.parametrize("factor", [1 / 16, 1.001, 1.0001])
def test_a_wrong_sum_fails(energy: Bundle, factor: float) -> None:
    scale_the_energy(energy, factor)  # 1/16: a divisor that is not overridden, 94 % too small
    report = dlzoo.verify(Bundle.open(energy.path))
    assert report.verdict == "fail"
    assert "output 'energy' has rho2" in report.explanation
    assert "output 'map'" not in report.explanation
