"""The examples are what their READMEs say."""

import json
import re
from pathlib import Path

import pytest

import dlzoo
from dlzoo.errors import DlzooError

TRAINED = Path(__file__).resolve().parent.parent / "examples" / "lenet5_fashion_mnist"


def stated_percent() -> float:
    (found,) = re.findall(r"\*\*(\d+\.\d+) %\*\*", (TRAINED / "README.md").read_text())
    return float(found)


def test_the_trained_bundle_is_proved() -> None:
    report = dlzoo.verify(TRAINED / "bundle", optimizations=("disabled", "all"))
    assert report, report.explanation


def test_the_trained_bundle_says_how_it_was_trained() -> None:
    from dlzoo.zoo.train.recipes.recipe_file import recipe_from_toml

    manifest = json.loads((TRAINED / "bundle" / "manifest.json").read_text())
    training = manifest["card"]["training"]
    assert round(training["test"]["top1_percent"], 2) == stated_percent()
    recipe = recipe_from_toml((TRAINED / "recipe.toml").read_text(), "recipe.toml").resolved()
    for part in ("model", "optimizer", "schedule", "loop", "augmentation", "loss"):
        assert training["recipe"][part] == recipe[part]
    assert manifest["labels"][-1] == "Ankle boot"
    card = (TRAINED / "bundle" / "MODEL_CARD.md").read_text()
    assert f"Of 10,000 test images {stated_percent()} % are right." in card
    assert "54,000 images of fashion-mnist, license MIT: Xiao, Rasul, Vollgraf 2017" in card


def test_the_trained_bundle_is_as_good_as_stated() -> None:
    from dlzoo.export.evaluate.evaluation import evaluate
    from dlzoo.image_file import Geometry
    from dlzoo.zoo.data.dataset_source import load_dataset

    geometry = Geometry(color="L", resize_size=28, crop_size=(32, 32))
    try:
        load_dataset("fashion-mnist", split="test", geometry=geometry, download=False)
    except DlzooError as error:
        pytest.skip(f"Fashion-MNIST is not on this machine: {error}")
    result = evaluate(TRAINED / "bundle")
    # A score on the edge may fall to the other side on another processor.
    assert abs(result.engines["onnxruntime"]["top1_percent"] - stated_percent()) < 0.05
