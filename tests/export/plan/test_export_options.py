"""What is asked of an export is delivered: axes, head, opset, preprocessing; or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import dlzoo
from dlzoo.errors import ArgumentError, DynamicAxisError
from dlzoo.export.plan.options import ExportOptions
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.proof.report import ProofError
from tests.support.recorded_progress import RecordedProgress


def export(name: str, target: Path, **options: Any) -> Bundle:
    return dlzoo.export_model(
        name,
        target / name,
        weights="random",
        options=ExportOptions(**options),
        optimizations=("disabled", "all"),
    )


def answers(bundle: Bundle) -> np.ndarray:
    golden = bundle.golden_sets()[0]
    (output,) = dlzoo.open_session(bundle, "cpu").run(golden.inputs).values()
    return output


def test_a_fixed_batch(tmp_path: Path) -> None:
    bundle = export("lenet5_relu", tmp_path, batch=4)
    assert bundle.manifest.inputs[0].dims == (4, 1, 32, 32)
    assert bundle.manifest.dynamic_axes == {}
    assert {golden.batch for golden in bundle.golden_sets()} == {4}
    assert bundle.parity()["verdict"] == "pass"


@pytest.mark.parametrize(
    ("head", "name", "sums_to_1"),
    [("softmax", "probabilities", True), ("sigmoid", "scores", False)],
)
def test_a_head(tmp_path: Path, head: Any, name: str, sums_to_1: bool) -> None:
    bundle = export("lenet5_relu", tmp_path, head=head)
    assert bundle.manifest.outputs[0].name == name
    values = answers(bundle)
    assert (values >= 0).all() and (values <= 1).all()
    assert np.allclose(values.sum(axis=1), 1.0, rtol=1e-6, atol=0) == sums_to_1


@pytest.mark.parametrize("opset", [15, 18, 21, 23])
def test_the_opset_is_the_one_asked_for(tmp_path: Path, opset: int) -> None:
    bundle = export("lenet5_relu", tmp_path, opset=opset)
    assert bundle.manifest.opset == bundle.header.opset == opset


@pytest.mark.slow
def test_a_dynamic_image_size_is_proved_at_held_out_sizes(tmp_path: Path) -> None:
    bundle = export("squeezenet1_1", tmp_path, image_size="dynamic")
    axes = bundle.manifest.dynamic_axes
    assert set(axes) == {"batch", "height", "width"}
    for symbol in ("height", "width"):
        held_out = set(axes[symbol].proved) - {224}
        assert len(held_out) >= 3
        assert any(size % 32 for size in held_out)


def test_a_range_of_image_sizes_is_proved_at_its_ends_and_between(tmp_path: Path) -> None:
    bundle = export("squeezenet1_1", tmp_path, image_size="64..160")
    for symbol in ("height", "width"):
        axis = bundle.manifest.dynamic_axes[symbol]
        assert (axis.min, axis.max) == (64, 160)
        assert {64, 160} < set(axis.proved)
        assert sum(size % 32 != 0 for size in axis.proved) >= 3


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("alexnet", 63),
        pytest.param("googlenet", 15, marks=pytest.mark.slow),
        pytest.param("vgg11", 32, marks=pytest.mark.slow),
    ],
)
def test_a_dynamic_size_is_proved_from_its_minimum_up(
    tmp_path: Path, name: str, smallest: int
) -> None:
    """AlexNet pools to 6 x 6 whatever comes: its windows are computed in the graph."""
    bundle = export(name, tmp_path, image_size="dynamic")
    for symbol in ("height", "width"):
        axis = bundle.manifest.dynamic_axes[symbol]
        assert (axis.min, axis.max) == (smallest, None)
        assert smallest in axis.proved and len(axis.proved) == 5


def test_another_image_size_changes_the_preprocessing(tmp_path: Path) -> None:
    bundle = export("squeezenet1_1", tmp_path, image_size=(96, 96))
    assert bundle.manifest.inputs[0].dims == ("batch", 3, 96, 96)
    preprocessing = bundle.manifest.preprocessing
    assert preprocessing is not None
    assert tuple(preprocessing["crop_size"]) == (96, 96)
    assert preprocessing["resize_size"] == 110  # 256 * 96 / 224


def test_a_dynamic_image_size_that_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DynamicAxisError, match="lenet5_relu"):
        export("lenet5_relu", tmp_path, image_size="dynamic")
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_and_an_image_size_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="beside `include_preprocessing`"):
        export("squeezenet1_1", tmp_path, image_size=(96, 96), include_preprocessing=True)


class Blind(nn.Module):
    """Its output hardly depends on its weights: no comparison of outputs can prove it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.conv(x).mean(dim=(2, 3)) * 1e-12 + 1.0


def test_a_proof_that_could_not_fail_is_vacuous(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="vacuous") as raised:
        dlzoo.export_model(Blind().eval(), tmp_path / "blind", input_shape=(3, 16, 16))
    assert raised.value.report.verdict == "vacuous"
    assert list(tmp_path.iterdir()) == []


def test_a_module_in_training_mode_is_exported_for_evaluation(tmp_path: Path) -> None:
    progress = RecordedProgress()
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(784, 5)
    ).train()
    bundle = dlzoo.export_model(
        module, tmp_path / "mine", input_shape=(3, 16, 16), progress=progress
    )
    assert any("eval" in note for note in progress.notes)
    assert module.training and module[3].training
    assert "Dropout" not in bundle.header.num_nodes_by_op
    assert bundle.parity()["verdict"] == "pass"
