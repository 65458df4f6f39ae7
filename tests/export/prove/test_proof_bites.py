"""The proof bites: every broken model fails, and a clean one passes at every input scale.

The broken graphs are those of ``broken_graphs.py``, in a bundle whose hashes were made right
again: only the numbers and the structure are left to give them away.
"""

import shutil
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import dlzoo
from dlzoo.runtime.bundle.bundle import Bundle, write_manifest
from dlzoo.zoo.initialization.signal import scale_to_unit_variance
from tests.support.broken_graphs import BREAKS

#: Odd, so that ceil_mode and the place of the padding matter.
IMAGE_SIZE = 21


class Patchwork(nn.Module):
    """One of every layer that a break needs, [N, 3, 21, 21] to [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.response_norm = nn.LocalResponseNorm(5, alpha=1e-2)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.batch_norm = nn.BatchNorm2d(8)
        self.gelu = nn.GELU()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.group_norm = nn.GroupNorm(4, 8)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8 * 11 * 11, 5)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = self.pool(self.response_norm(self.relu(self.conv(x_NCHW))))
        x_NCHW = self.gelu(self.batch_norm(x_NCHW))
        x_NCHW = self.group_norm(self.conv2(x_NCHW))
        scores_NK: Tensor = self.fc(self.flatten(x_NCHW))
        return scores_NK


def make_patchwork() -> Patchwork:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = Patchwork().eval()
    scale_to_unit_variance(module, (3, IMAGE_SIZE, IMAGE_SIZE), 0)
    return module


@pytest.fixture(scope="module")
def clean_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("bites") / "patchwork"
    shape = (3, IMAGE_SIZE, IMAGE_SIZE)
    return dlzoo.export_model(make_patchwork(), target, input_shape=shape)


def test_the_clean_model_passes_at_scales_1_and_50(clean_bundle: Bundle) -> None:
    report = dlzoo.verify(clean_bundle, optimizations=("disabled", "basic", "extended", "all"))
    assert report.verdict == "pass", report.explanation
    kinds = {result.kind for result in report.candidates}
    assert {"normal x1", "normal x50"} <= kinds


@pytest.mark.parametrize("seed", range(3))
def test_the_clean_model_passes_on_inputs_it_has_not_seen(
    clean_bundle: Bundle, seed: int
) -> None:
    report = dlzoo.verify(clean_bundle, against=make_patchwork(), seed=seed)
    assert report.verdict == "pass", report.explanation


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_model_fails(clean_bundle: Bundle, tmp_path: Path, name: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(clean_bundle.path, broken)
    model = onnx.load(broken / "model.onnx")
    before = model.SerializeToString()
    BREAKS[name](model)
    assert model.SerializeToString() != before, "the break changed nothing"
    onnx.save(model, broken / "model.onnx")
    write_manifest(broken, clean_bundle.manifest)

    report = dlzoo.verify(broken)

    assert report.verdict == "fail"
    assert report.explanation


def test_a_changed_file_is_named(clean_bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(clean_bundle.path, copy)
    data = bytearray((copy / "model.onnx").read_bytes())
    data[-1] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(dlzoo.errors.BundleError, match=r"model\.onnx was changed"):
        dlzoo.verify(copy)
