"""A training run as the source of an export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dlzoo.errors import ArgumentError, DlzooError
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.source import SourceOptions
from dlzoo.zoo.train.run.trained_network import best_weights
from dlzoo.zoo.training import train
from tests.support.training_runs import network_file, small_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained with weights and data by path, in colour and on images that are not square."""
    folder = tmp_path_factory.mktemp("run")
    recipe = small_recipe(
        f"{network_file(folder)}:any_size", data__color="RGB", data__image_size=[10, 8]
    )
    train(recipe, folder / "run")
    return folder / "run"


def test_the_network_has_the_best_weights(run: Path) -> None:
    source = load_source(str(run))
    expected = best_weights(run / "best.safetensors")
    assert source.network.state_dict().keys() == expected.keys()
    for name, value in source.network.state_dict().items():
        assert torch.equal(value, expected[name])
    assert not any(part.training for part in source.network.modules())
    assert source.inputs[0].shape == (1, 3, 10, 8)
    assert source.preprocessing is not None
    assert source.preprocessing.crop_size == (10, 8)
    assert len(source.preprocessing.mean) == 3


def test_no_path_of_this_machine_goes_along(run: Path) -> None:
    source = load_source(str(run))
    text = json.dumps([source.card, source.weights, source.name])
    assert str(run.parent) not in text
    assert source.weights["source"] == "networks.py:any_size on digits"


@pytest.mark.parametrize(
    "options",
    [
        SourceOptions(weights="random"),
        SourceOptions(num_classes=3),
        SourceOptions(inputs=(InputSpec(name="input", shape=(1, 3, 8, 8)),)),
    ],
)
def test_options_that_a_run_has_by_itself(run: Path, options: SourceOptions) -> None:
    with pytest.raises(ArgumentError, match="Leave it out"):
        load_source(str(run), options)


def test_facts_that_do_not_go_with_the_weights(run: Path) -> None:
    text = (run / "run.json").read_text()
    facts = json.loads(text)
    changes = {
        "class_names": ["a", "b"],
        "input_shape": [1, 1],
        "preprocessing": {"color": "RGB"},
    }
    try:
        for key, value in changes.items():
            (run / "run.json").write_text(json.dumps({**facts, key: value}))
            with pytest.raises(DlzooError) as caught:
                load_source(str(run))
            assert "\n" not in str(caught.value)
    finally:
        (run / "run.json").write_text(text)
