"""``dlzoo evaluate`` as a user runs it: runs and bundles, their figures, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from dlzoo.api import export_model
from dlzoo.cli.main import main
from dlzoo.runtime.bundle.bundle import Bundle, write_manifest
from dlzoo.zoo.train.run.run_folder import RunFolder
from dlzoo.zoo.training import train
from tests.support.training_runs import network_file, small_recipe


@dataclass
class Ended:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


RunCommand = Callable[..., Ended]


@pytest.fixture
def evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> RunCommand:
    """Run the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dlzoo", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return Ended(int(caught.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("evaluated")
    train(small_recipe(f"{network_file(place)}:normalized", loop__epochs=3), place / "run")
    export_model(str(place / "run"), place / "run" / "bundle")
    return place


def complaint(ended: Ended) -> str:
    assert (ended.status, ended.out) == (2, ""), ended
    assert ended.err.startswith("dlzoo: ") and ended.err.count("\n") == 1, ended.err
    return ended.err


# -- figures -------------------------------------------------------------------------------------


def test_both_engines_and_the_run_say_the_same(folder: Path, evaluate: RunCommand) -> None:
    ended = evaluate(folder / "run", "--data", "digits")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    pytorch, onnxruntime = (line.split() for line in lines[1:3])
    assert (pytorch.pop(0), onnxruntime.pop(0)) == ("pytorch", "onnxruntime")
    assert pytorch == onnxruntime
    test = RunFolder.open(folder / "run").test
    assert test is not None
    assert pytorch[:2] == ["360", f"{test['top1_percent']:.2f}"]
    assert pytorch[-1] == f"{test['loss']:.4f}"
    assert "0 images get a different class in ONNX Runtime" in ended.out


def test_json_of_a_run_and_of_a_bundle(folder: Path, evaluate: RunCommand) -> None:
    run = evaluate(folder / "run", "--json")
    bundle = evaluate(folder / "run" / "bundle", "--data", "digits", "--json")
    assert (run.status, bundle.status, run.err, bundle.err) == (0, 0, "", "")
    keys = {"data", "split", "engines", "disagreements", "relative_difference"}
    keys |= {"export_failure", "agrees"}
    figures = {"num_images", "loss", "top1_percent", "top5_percent", "mean_f1_percent"}
    for document in (run.document, bundle.document):
        assert document.keys() == keys
        assert (document["data"], document["split"]) == ("digits", "test")
        assert document["disagreements"] == [] and document["agrees"] is True
        for engine in document["engines"].values():
            assert engine.keys() == figures
    assert run.document["engines"].keys() == {"pytorch", "onnxruntime"}
    assert 0 <= run.document["relative_difference"] < 1e-5
    assert bundle.document["relative_difference"] is None
    assert bundle.document["engines"] == {
        "onnxruntime": run.document["engines"]["onnxruntime"]
    }


# -- images in other classes ------------------------------------------------------------------------


def with_swapped_classes(bundle: Path, copy: Path) -> None:
    """The same network, but the scores of 3 and 8 have changed places: what a wrong export does."""
    shutil.copytree(bundle, copy)
    model = onnx.load(copy / "model.onnx")
    changed = 0
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if 10 in array.shape and array.ndim <= 2:
            axis = array.shape.index(10)
            order = np.arange(10)
            order[[3, 8]] = 8, 3
            tensor.CopyFrom(numpy_helper.from_array(array.take(order, axis), tensor.name))
            changed += 1
    assert changed == 2  # weight and bias
    onnx.save(model, copy / "model.onnx")
    write_manifest(copy, Bundle.open(copy).manifest)


def test_images_in_other_classes_are_listed(
    folder: Path, evaluate: RunCommand, tmp_path: Path
) -> None:
    with_swapped_classes(folder / "run" / "bundle", tmp_path / "swapped")
    ended = evaluate(folder / "run", "--bundle", "swapped")
    assert ended.status == 1
    assert ended.err.startswith("dlzoo: ") and ended.err.count("\n") == 1
    rows = [line.split() for line in ended.out.splitlines() if line.endswith("WRONG")]
    assert len(rows) == 10  # the first of them
    for row in rows:
        assert {row[2], row[3]} == {"3", "8"}
        assert float(row[4]) > 0
    ended = evaluate(folder / "run", "--bundle", "swapped", "--json")
    document = ended.document
    assert ended.status == 1 and document["agrees"] is False
    found = document["disagreements"]
    assert len(found) > 10 and str(found[0]["index"]) == rows[0][0]
    assert found[0].keys() == {
        *("index", "target", "pytorch", "onnxruntime", "margin", "is_noise")
    }
    engines = document["engines"]
    assert engines["pytorch"]["top1_percent"] > engines["onnxruntime"]["top1_percent"] + 10


# -- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'RUN|BUNDLE'"),
        (["nowhere"], "nowhere does not exist"),
        (["run", "--data", "digit"], "Did you mean 'digits'?"),
        (["run", "--data", "mnist", "--data-root", "nowhere"], "nowhere is not a folder"),
        (["run", "--data", "nothing/"], "nothing"),
        (["run/bundle", "--data", "labels.csv"], "labels.csv"),
        (["run", "--split", "half"], "has the splits"),
        (["run", "--provider", "tpu"], "tpu"),
        (["run", "--bundle", "run/nothing"], "run/nothing does not exist"),
        (["run/bundle", "--bundle", "run/bundle"], "goes with the folder of a training run"),
        (["run", "run"], "unexpected extra argument"),
        (["run", "--no-such-option"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_one_line(
    folder: Path, evaluate: RunCommand, arguments: list[str], message: str
) -> None:
    placed = [str(folder / a) if a.startswith("run") else a for a in arguments]
    assert message.replace("run/", f"{folder}/run/") in complaint(evaluate(*placed))


def test_a_bundle_of_another_number_of_classes(
    folder: Path, evaluate: RunCommand, tmp_path: Path
) -> None:
    for label in ("cat", "dog", "owl"):
        (tmp_path / "pets" / "test" / label).mkdir(parents=True)
        image = Image.fromarray(np.zeros((8, 8), np.uint8))
        image.save(tmp_path / "pets" / "test" / label / "a.png")
    for model in ("run", "run/bundle"):
        said = complaint(evaluate(folder / model, "--data", "pets"))
        assert "pets has the 3 classes cat, dog, owl" in said
        assert "and " in said and "the 10 0, 1, 2" in said


# -- several labels an image, and embeddings ---------------------------------------------------------


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """40 pictures with a light half, dark corners, both or neither."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    with (tmp_path / "index.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "labels", "split"])
        for number in range(40):
            pixels = rng.integers(90, 130, (8, 8)).astype(np.uint8)
            labels = [name for name in ("half", "corner") if rng.random() < 0.5]
            if "half" in labels:
                pixels[:4] += 100
            if "corner" in labels:
                pixels[-2:, -2:] = 0
            Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
            split = "train" if number < 30 else "test"
            rows.writerow([f"images/{number}.png", "|".join(labels), split])
    return tmp_path / "index.csv"


def test_several_labels_an_image(labelled: Path, tmp_path: Path, evaluate: RunCommand) -> None:
    networks = tmp_path / "networks.py"
    networks.write_text(
        "from torch import nn\n\n\n"
        "def two():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))\n"
    )
    recipe = small_recipe(
        f"{networks}:two", data__name=str(labelled), loss={"name": "binary-cross-entropy"}
    )
    train(recipe, tmp_path / "run")
    export_model(str(tmp_path / "run"), tmp_path / "run" / "bundle")
    ended = evaluate("run", "--tables", "tables")
    assert (ended.status, ended.err) == (0, ""), ended
    assert "mAP" in ended.out and "top-1" not in ended.out
    assert "Outputs differ by at most" in ended.out
    document = evaluate("run", "--json").document
    figures = RunFolder.open(tmp_path / "run").test
    assert figures is not None
    for engine in document["engines"].values():
        assert engine["num_images"] == 10
        assert engine["map_percent"] == pytest.approx(figures["map_percent"])
    bundle = evaluate("run/bundle", "--data", "index.csv", "--json").document
    assert bundle["engines"]["onnxruntime"] == document["engines"]["onnxruntime"]
    with (tmp_path / "tables" / "classes.csv").open(newline="") as stream:
        assert [row["class"] for row in csv.DictReader(stream)] == ["corner", "half"]
    # Other answers are found, though there is no class to compare.
    shutil.copytree(tmp_path / "run" / "bundle", tmp_path / "other")
    change_bias(tmp_path / "other", 2)
    ended = evaluate("run", "--bundle", "other")
    assert ended.status == 1 and "outputs in ONNX Runtime differ from PyTorch's" in ended.err


def change_bias(bundle: Path, num_outputs: int) -> None:
    """A thousandth more in one output."""
    model = onnx.load(bundle / "model.onnx")
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    (bias,) = (t for t in floats if list(t.dims) == [num_outputs])
    array = numpy_helper.to_array(bias).copy()
    array[1] += 1e-3
    bias.CopyFrom(numpy_helper.from_array(array, bias.name))
    onnx.save(model, bundle / "model.onnx")
    write_manifest(bundle, Bundle.open(bundle).manifest)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_embeddings_have_a_loss_and_no_classes(
    tmp_path: Path, evaluate: RunCommand, loss: str
) -> None:
    recipe = small_recipe(
        f"{network_file(tmp_path)}:normalized", loss={"name": loss}, loop__epochs=1
    )
    result = train(recipe, tmp_path / "run")
    assert result.test is not None and result.test.keys() == {"num_images", "loss", "epoch"}
    assert not (tmp_path / "run" / "confusion.csv").exists()
    assert not any(
        "top1" in key and row[key] is not None for row in result.rows for key in row
    )
    export_model(str(tmp_path / "run"), tmp_path / "run" / "bundle")
    assert Bundle.open(tmp_path / "run" / "bundle").labels is None
    ended = evaluate("run")
    assert (ended.status, ended.err) == (0, ""), ended
    assert ended.out.splitlines()[0].split() == ["engine", "images", "loss"]
    for model in ("run", "run/bundle"):
        document = evaluate(model, "--json").document
        for engine in document["engines"].values():
            assert engine == {
                "num_images": 360,
                "loss": pytest.approx(result.test["loss"], rel=1e-4),
            }
    assert f"trained with the {loss} loss" in complaint(evaluate("run", "--tables", "tables"))
    change_bias(tmp_path / "run" / "bundle", 10)
    ended = evaluate("run")
    assert ended.status == 1 and "outputs in ONNX Runtime differ from PyTorch's" in ended.err


# -- Ctrl-C -----------------------------------------------------------------------------------------


def test_ctrl_c_ends_with_130_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """While a bundle is exported for now, which takes seconds."""
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("bundle"))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "dlzoo", "evaluate", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert "has no bundle: one is exported for this" in first
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), err
    assert err.strip().splitlines()[-1] == "dlzoo: interrupted; nothing was left behind."
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
