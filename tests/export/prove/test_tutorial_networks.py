"""Everyday networks, as tutorials write them, export as they are and pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlzoo.export.prove.proof import export_and_report
from tests.support.tutorial_networks import TUTORIALS, build_tutorial

#: In the ordinary run: two outputs, an input of integers, two inputs, and text book CNNs.
QUICK = ("view-net", "vae-encoder", "denoising-mlp", "seq2seq-encoder")


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in TUTORIALS
    ],
)
def test_exports_and_passes(name: str, tmp_path: Path) -> None:
    module = build_tutorial(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    bundle, report = export_and_report(
        module, tmp_path / "bundle", inputs=TUTORIALS[name].inputs
    )
    assert report.verdict == "pass", report.explanation
    assert report.power is not None
    assert not report.power.missed
    # A bias before an instance normalization is taken off again.
    assert all(key.endswith("bias") for key in report.power.without_effect)
    # A change of 1 % in any weight tensor would fail.
    assert max(report.power.smallest_changes.values()) < 0.01
    assert [spec.name for spec in bundle.manifest.inputs] == [
        spec.name for spec in TUTORIALS[name].inputs
    ]
    for key, value in module.state_dict().items():
        assert value.equal(before[key]), key
