"""Every model of the zoo exports at its own size, and proves itself."""

from pathlib import Path

import pytest

import dlzoo
from dlzoo.zoo.catalog import list_models
from dlzoo.zoo.registry import Card


@pytest.mark.slow
@pytest.mark.parametrize("card", list_models(), ids=lambda card: card.name)
def test_a_model_exports_and_proves_itself(card: Card, tmp_path: Path) -> None:
    bundle = dlzoo.export_model(card.name, tmp_path / card.name, weights="random")
    assert bundle.parity()["verdict"] == "pass"
    power = bundle.parity()["power"]
    assert power["detected"] >= 0.9 * power["tried"] > 0
    assert bundle.manifest.dynamic_axes["batch"].proved == (1, 2, 3)
