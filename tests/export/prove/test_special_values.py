"""Inputs with NaN and infinities are reported, and decide only where that is asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dlzoo
from dlzoo.export.reference.proved_sizes import proved_axes
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.proof.declarations import replayed_axes
from dlzoo.runtime.proof.report import ProofError
from dlzoo.testing import assert_onnx_parity
from tests.support.dlzoo_process import run_dlzoo

SHAPE = (3, 8, 8)


class GlobalMax(nn.Module):
    """ONNX Runtime's ReduceMax drops NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.conv(x).amax((2, 3)))
        return scores


def seeded(build: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


@pytest.fixture(scope="module")
def global_max(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("special") / "global_max"
    return dlzoo.export_model(seeded(GlobalMax), target, input_shape=SHAPE)


def test_the_first_node_that_differs_is_named(global_max: Bundle) -> None:
    (entry,) = global_max.manifest.special_values
    assert not entry["same"] and entry["outputs"] == ["logits"]
    assert entry["first_node"].startswith("ReduceMax ")
    assert entry["module"] == "" and "test_special_values.py:" in entry["source"]
    assert entry["text"].startswith(
        "NaN, +Inf and -Inf pixel: output 'logits' is finite, NaN or Inf elsewhere than in "
        f"PyTorch; the first node that differs is {entry['first_node']} (the network's forward, "
    )


def test_the_page_says_so(global_max: Bundle) -> None:
    page = (global_max.path / "report.html").read_text(encoding="utf-8")
    assert "the first node that differs is ReduceMax" in page


def test_a_network_of_sums_answers_as_pytorch_does(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    bundle = dlzoo.export_model(
        module, tmp_path / "sums", input_shape=SHAPE, strict_special_values=True
    )
    (entry,) = bundle.manifest.special_values
    assert entry["same"] and entry["text"] == "NaN, +Inf and -Inf pixel: as in PyTorch"


def test_strictly_they_decide(global_max: Bundle, tmp_path: Path) -> None:
    assert dlzoo.verify(global_max)
    report = dlzoo.verify(global_max, strict_special_values=True)
    assert report.verdict == "fail"
    assert "finite, NaN or Inf where they should not be" in report.explanation
    with pytest.raises(ProofError, match="NaN or Inf where they should not be"):
        dlzoo.export_model(
            seeded(GlobalMax),
            tmp_path / "strict",
            input_shape=SHAPE,
            strict_special_values=True,
        )
    assert not (tmp_path / "strict").exists()


def test_the_command_line_says_so_and_takes_the_option(global_max: Bundle) -> None:
    shown = run_dlzoo("verify", str(global_max.path))
    assert shown.returncode == 0
    assert "special values" in shown.stdout
    strict = run_dlzoo("verify", str(global_max.path), "--strict-special-values")
    assert strict.returncode == 1


def test_an_assertion_is_as_strict_as_asked() -> None:
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    x[0, 0, 4, 4] = torch.nan
    module = seeded(GlobalMax)
    with pytest.raises(AssertionError, match="NaN or Inf where they should not be"):
        assert_onnx_parity(module, x, strict_special_values=True)


def test_sizes_of_such_inputs_are_not_proved(global_max: Bundle) -> None:
    manifest = global_max.manifest
    special = [golden for golden in global_max.golden_sets() if not golden.is_finite]
    large = replace(special[0], inputs={"input": np.full((7, *SHAPE), np.nan, np.float32)})
    sets = [*global_max.golden_sets(), large]
    axes = proved_axes(manifest.inputs, manifest.dynamic_axes, sets)
    assert axes["batch"].proved == (1, 2, 3)
    replayed = replayed_axes(manifest.inputs, manifest.dynamic_axes, sets)
    assert replayed["batch"]["proved"] == [1, 2, 3]
