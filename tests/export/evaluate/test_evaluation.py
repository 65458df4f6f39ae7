"""``dlzoo evaluate``: the same images in PyTorch and in ONNX Runtime, and how a run exports."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlzoo.api import export_model
from dlzoo.cli.main import main
from dlzoo.errors import ArgumentError, BundleError, DataError, DlzooError
from dlzoo.export.evaluate.class_disagreement import Disagreement, find_disagreements
from dlzoo.export.evaluate.evaluation import Evaluation, evaluate
from dlzoo.image_file import Geometry
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.images.preprocess import ImageSpec
from dlzoo.zoo.data.dataset_source import load_dataset
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.train.run.run_folder import RunFolder
from dlzoo.zoo.training import train
from tests.support.recorded_progress import RecordedProgress
from tests.support.training_runs import network_file, small_recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its bundle, and one that whitens its images and has another loss."""
    folder = tmp_path_factory.mktemp("runs")
    networks = network_file(folder)
    train(small_recipe(f"{networks}:normalized", loop__epochs=3), folder / "run")
    whitened = {"normalization": {"name": "zca"}, "loss": {"name": "focal", "gamma": 2.0}}
    train(small_recipe(f"{networks}:tiny", **whitened), folder / "whitened")
    for name in ("run", "whitened"):
        export_model(str(folder / name), folder / name / "bundle")
    return folder


def test_a_run_exports_with_its_labels_and_preprocessing(runs: Path) -> None:
    manifest = Bundle.open(runs / "run" / "bundle").manifest
    facts = RunFolder.open(runs / "run").facts
    assert manifest.labels is not None and manifest.preprocessing is not None
    assert list(manifest.labels) == facts["class_names"] == list("0123456789")
    for key in ("mean", "std", "crop_size", "color", "resize_size", "interpolation"):
        got, expected = manifest.preprocessing[key], facts["preprocessing"][key]
        assert json.loads(json.dumps(got)) == expected, key
    assert manifest.weights["kind"] == "trained"
    text = (runs / "run" / "bundle" / "manifest.json").read_text()
    assert str(runs) not in text  # no path of this machine
    training = manifest.card["training"]
    assert training["recipe"]["loop"]["epochs"] == 3
    assert training["test"] == RunFolder.open(runs / "run").test


def test_the_bundle_verifies(runs: Path, tmp_path: Path) -> None:
    from dlzoo.api import verify

    for name in ("run", "whitened"):
        assert verify(runs / name / "bundle").verdict == "pass"


def test_the_whitening_is_a_layer_of_the_graph(runs: Path) -> None:
    source = load_source(str(runs / "whitened"))
    assert "normalization.weight" in source.network.state_dict()
    result = evaluate(runs / "whitened")
    assert result and not result.disagreements
    figures = RunFolder.open(runs / "whitened").test
    assert figures is not None
    assert result.engines["pytorch"]["top1_percent"] == figures["top1_percent"]
    # The loss is the run's own, of the bundle, too.
    assert result.engines["onnxruntime"]["loss"] == pytest.approx(figures["loss"], rel=1e-5)


def test_both_engines_say_what_the_run_said(runs: Path) -> None:
    result = evaluate(runs / "run")
    assert result
    figures = RunFolder.open(runs / "run").test
    assert figures is not None
    assert result.engines.keys() == {"pytorch", "onnxruntime"}
    for engine in result.engines.values():
        assert engine["num_images"] == 360
        assert engine["top1_percent"] == figures["top1_percent"]
        assert engine["loss"] == pytest.approx(figures["loss"], rel=1e-5)
    assert result.relative_difference is not None
    assert 0 < result.relative_difference < 1e-5


def test_a_bundle_alone(runs: Path, tmp_path: Path) -> None:
    result = evaluate(runs / "run" / "bundle", tables=tmp_path / "tables")
    both = evaluate(runs / "run")
    assert result.engines == {"onnxruntime": both.engines["onnxruntime"]}
    assert result.relative_difference is None
    with (tmp_path / "tables" / "classes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(int(row["num_samples"]) for row in rows) == 360
    train_split = evaluate(runs / "run" / "bundle", split="train")
    assert train_split.engines["onnxruntime"]["num_images"] == 1437


def test_without_a_bundle_one_is_made_for_now(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "run", tmp_path / "run", ignore=shutil.ignore_patterns("bundle"))
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    progress = RecordedProgress()
    result = evaluate(tmp_path / "run", progress=progress)
    assert result
    assert "has no bundle" in progress.notes[0]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


NOT_FOR_ONNX = """
from torch import nn


class Branches(nn.Module):  # what it does depends on the numbers: torch.export refuses it
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        scores = self.layers(x)
        return -scores if float(scores.detach().mean()) > 1e6 else scores


def branching():
    return Branches()
"""


@pytest.fixture(scope="module")
def refused_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network does not export."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "branching.py").write_text(NOT_FOR_ONNX)
    train(small_recipe(f"{folder / 'branching.py'}:branching"), folder / "run")
    return folder / "run"


def test_a_run_that_does_not_export_has_pytorchs_figures(refused_run: Path) -> None:
    result = evaluate(refused_run)
    assert not result
    assert result.export_failure is not None and "Branches" in result.export_failure
    (figures,) = result.engines.values()
    said = RunFolder.open(refused_run).test
    assert said is not None
    assert figures["top1_percent"] == pytest.approx(said["top1_percent"])
    assert result.to_json()["export_failure"] == result.export_failure


def test_the_command_prints_them_then_the_reason(
    refused_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["dlzoo", "evaluate", str(refused_run), "--tables", str(tmp_path / "t")]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capfd.readouterr()
    assert caught.value.code == 1
    assert "pytorch" in out and "onnxruntime" not in out
    assert "has no ONNX model, so these are PyTorch's figures alone" in err
    assert (tmp_path / "t" / "confusion.csv").is_file()


# -- what does not go together ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("run", {"data": "no-such-data"}, "No data set is named"),
        ("run", {"split": "everything"}, "has the splits"),
        ("run", {"provider": "tpu"}, "tpu"),
        ("run/bundle", {"bundle": "run/bundle"}, "goes with the folder of a training run"),
        ("run", {"bundle": "whitened/bundle"}, "has other weights than"),
        ("run", {"bundle": "nowhere"}, "nowhere"),
        ("nowhere", {}, "nowhere"),
    ],
)
def test_what_does_not_go_together(
    runs: Path, model: str, options: dict[str, Any], message: str
) -> None:
    if "bundle" in options:
        options = {**options, "bundle": runs / options["bundle"]}
    with pytest.raises(DlzooError, match=message) as caught:
        evaluate(runs / model, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_data_of_other_classes(runs: Path, tmp_path: Path) -> None:
    from PIL import Image

    for label in ("cat", "dog"):
        place = tmp_path / "pets" / "test" / label
        place.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(place / "a.png")
    for model in ("run", "run/bundle"):
        with pytest.raises(DataError, match="Give the data that it was trained for"):
            evaluate(runs / model, data=str(tmp_path / "pets"))


def test_a_bundle_without_preprocessing(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    export_model(network, tmp_path / "bundle", input_shape=(1, 2, 2))
    with pytest.raises(ArgumentError, match="does not say which data it was trained on"):
        evaluate(tmp_path / "bundle")
    with pytest.raises(BundleError, match="does not say how images become its input"):
        evaluate(tmp_path / "bundle", data="digits")


# -- other classes ------------------------------------------------------------------------------------


def digits(bundle: Bundle) -> tuple[torch.Tensor, list[str]]:
    """The test images as the network takes them, and the names of their classes."""
    assert bundle.manifest.preprocessing is not None
    spec = ImageSpec.from_mapping(bundle.manifest.preprocessing)
    dataset = load_dataset("digits", split="test", geometry=Geometry.of(spec))
    pixels = dataset.read(range(len(dataset))).float() / 255
    names = [dataset.class_names[target] for target in dataset.targets.tolist()]
    return (pixels - spec.mean[0]) / spec.std[0], names


def judged(
    run: Path, network: torch.nn.Module, change: Callable[[torch.Tensor], None]
) -> tuple[Disagreement, ...]:
    """The disagreements that are found where ONNX Runtime's outputs are changed."""
    bundle = Bundle.open(run / "bundle")
    images, targets = digits(bundle)
    with torch.no_grad():
        first = network(images)
    second = first.clone()
    change(second)
    outputs = {"pytorch": first, "onnxruntime": second}
    names = [str(number) for number in range(10)]
    return find_disagreements(
        network, bundle.manifest, lambda k: images[list(k)], targets, outputs, names
    )


def test_another_class_beyond_the_noise_is_wrong(runs: Path) -> None:
    def change(outputs: torch.Tensor) -> None:
        outputs[3] = -outputs[3]
        outputs[5] = -outputs[5]

    found = judged(runs / "run", load_source(str(runs / "run")).network, change)
    assert [one.index for one in found] == [3, 5]
    assert not any(one.is_noise for one in found)
    assert all(one.margin > 0 for one in found)
    result = Evaluation("digits", "test", {}, found, 1.0)
    assert not result
    assert result.to_json()["agrees"] is False


def test_equal_scores_but_for_the_noise_are_noise(runs: Path) -> None:
    """Two classes exactly as good: which comes first is float32's rounding."""
    network = load_source(str(runs / "run")).network
    last = network.get_submodule("8")
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight[1] = last.weight[0]
        last.bias[1] = last.bias[0]
    places = []

    def change(outputs: torch.Tensor) -> None:
        index = int((outputs.argmax(1) == 0).nonzero()[0])
        outputs[index, 1] = torch.nextafter(outputs[index, 1], torch.tensor(torch.inf))
        places.append(index)

    (found,) = judged(runs / "run", network, change)
    assert (found.index, found.pytorch, found.onnxruntime) == (places[0], "0", "1")
    assert found.is_noise
    assert Evaluation("digits", "test", {}, (found,), 1e-7)


def test_wrong_classes_end_with_status_1(
    runs: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bundle of other weights that claims to be of this run."""
    forged = tmp_path / "forged"
    shutil.copytree(runs / "whitened" / "bundle", forged)
    own = Bundle.open(runs / "run" / "bundle").manifest.weights["sha256"]
    manifest = json.loads((forged / "manifest.json").read_text())
    manifest["weights"]["sha256"] = own
    (forged / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(
        sys, "argv", ["dlzoo", "evaluate", str(runs / "run"), "--bundle", str(forged)]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capfd.readouterr()
    assert caught.value.code == 1, err
    assert "WRONG" in out
    assert max(map(len, out.splitlines())) <= 80
    assert err.startswith("dlzoo: ") and "images get a different class in ONNX Runtime" in err
