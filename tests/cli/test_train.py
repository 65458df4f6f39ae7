"""``dlzoo train``: wrong arguments, looking before training, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlzoo.cli.main import main
from dlzoo.zoo.train.loop.reports import EpochReport
from dlzoo.zoo.train.run.run_folder import RunFolder
from dlzoo.zoo.training import train
from tests.support.training_runs import network_file


@dataclass
class Ended:
    """How a command ended and what it said."""

    status: int
    out: str
    err: str


RunCommand = Callable[..., Ended]
#: Options that make the digits an input of the tests' networks.
SMALL = ("--image-size", "8,8", "--set", "data.color=L", "--batch-size", "200")


@pytest.fixture
def dlzoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> RunCommand:
    """Run a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["dlzoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return Ended(int(caught.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{network_file(tmp_path_factory.mktemp('networks'))}:tiny"


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither a MODEL nor a --recipe"),
        (["lenet6"], "lenet6"),
        (["nothing.py:factory", "--image-size", "8,8"], "expected a Python file"),
        (["lenet5_relu", "--data", "digit"], "Did you mean 'digits'?"),
        (["lenet5_relu", "--data-root", "nowhere"], "nowhere is not a folder"),
        (["lenet5_relu", "--recipe", "nothing.toml"], "nothing.toml"),
        (["lenet5_relu", "--recipe", "no-such-recipe"], "no-such-recipe"),
        (["lenet5_relu", "--epochs", "0"], "loop.epochs: got 0"),
        (["lenet5_relu", "--epochs", "many"], "Invalid value for '--epochs'"),
        (["lenet5_relu", "--batch-size", "0"], "loop.batch_size: got 0"),
        (["lenet5_relu", "--lr", "0"], "optimizer.lr: got 0"),
        (["lenet5_relu", "--lr", "nan"], "optimizer.lr: got nan"),
        (["lenet5_relu", "--seed", "-1"], "loop.seed: got -1"),
        (["lenet5_relu", "--workers", "-1"], "data.num_workers: got -1"),
        (["lenet5_relu", "--precision", "8-bit"], "loop.precision: got '8-bit'"),
        (["lenet5_relu", "--precision", "16-mixed"], "needs a GPU"),
        (["lenet5_relu", "--device", "tpu"], "expected auto, cpu or cuda"),
        (["lenet5_relu", "--image-size", "8"], "expected H,W"),
        (["lenet5_relu", "--image-size", "0,8"], "expected H,W"),
        (["lenet5_relu", "--image-size", "8,8"], "expected at least 32 x 32"),
        (["lenet5_relu", "--weights", "imagenet"], "no weights named 'imagenet'"),
        (["lenet5_relu", "--weights", "none.safetensors"], "none.safetensors"),
        (["lenet5_relu", "--set", "nonsense"], "expected KEY=VALUE"),
        (["lenet5_relu", "--set", "=3"], "expected KEY=VALUE"),
        (["lenet5_relu", "--set", "loop.epoch=3"], "loop.epoch: no such key"),
        (["lenet5_relu", "--set", "optimizer.name=magic"], "'magic'"),
        (["lenet5_relu", "--set", "model.arguments.depth=3"], "does not take the arguments"),
        (["lenet5_relu", "--set", "data.validation=1"], "data.validation"),
        (
            ["lenet5_relu", "--set", "data.validation=0", "--set", "loop.patience=3"],
            "loop.patience needs validation images",
        ),
        (["lenet5_relu", "--resume", "run"], "uses the run's own recipe"),
        (["--resume", "nowhere"], "nowhere is not a training run"),
        (["--resume", "nowhere", "--epochs", "3"], "got loop.epochs as well"),
        (["lenet5_relu", "--plot-schedule", "lr.png"], "ends in .svg"),
        (["lenet5_relu", "--plot-schedule", "nowhere/lr.svg"], "Cannot write lr.svg"),
        (["lenet5_relu", "--no-such-option"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_one_line_and_leaves_nothing(
    dlzoo: RunCommand, tmp_path: Path, arguments: list[str], message: str
) -> None:
    ended = dlzoo("train", *arguments)
    assert (ended.status, ended.out) == (2, ""), ended
    assert message in ended.err
    assert ended.err.startswith("dlzoo: ") and ended.err.count("\n") == 1, ended.err
    assert not list(tmp_path.iterdir())


# -- looking before training ------------------------------------------------------------------------


def test_a_recipe_that_is_shown_is_accepted(dlzoo: RunCommand, tmp_path: Path) -> None:
    for arguments in (["lenet5_relu", "--lr", "0.03"], ["alexnet", "--image-size", "64,64"]):
        shown = dlzoo("train", *arguments, "--show-recipe")
        assert shown.status == 0, shown.err
        assert tomllib.loads(shown.out)["model"]["name"] == arguments[0]
        (tmp_path / "mine.toml").write_text(shown.out)
        again = dlzoo("train", "--recipe", "mine.toml", "--show-recipe")
        assert again.out == shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_number_can_be_changed_where_no_recipe_ships(dlzoo: RunCommand, tiny: str) -> None:
    shown = dlzoo("train", tiny, *SMALL, "--lr", "0.25", "--show-recipe")
    assert shown.status == 0, shown.err
    recipe = tomllib.loads(shown.out)
    assert (recipe["optimizer"]["name"], recipe["optimizer"]["lr"]) == ("adamw", 0.25)


def test_the_schedule_is_drawn(dlzoo: RunCommand, tmp_path: Path) -> None:
    ended = dlzoo("train", "lenet5_relu", "--plot-schedule", "lr.svg")
    assert (ended.status, ended.out) == (0, "Wrote lr.svg.\n")
    assert (tmp_path / "lr.svg").read_text().startswith("<svg")
    assert [path.name for path in tmp_path.iterdir()] == ["lr.svg"]


# -- training ------------------------------------------------------------------------------------------


def test_a_run_in_80_columns(dlzoo: RunCommand, tmp_path: Path, tiny: str) -> None:
    ended = dlzoo("train", tiny, *SMALL, "--epochs", "2")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["epoch", "train", "loss"]
    assert [line.split()[0] for line in lines[1:3]] == ["1/2", "2/2"]
    assert lines[-3].startswith("Test: top-1 ")
    assert lines[-2:] == ["Run: runs/tiny-digits", "Export it: dlzoo export runs/tiny-digits"]
    taken = dlzoo("train", tiny, *SMALL, "--epochs", "2")
    assert taken.status == 2
    assert 'Continue it with "dlzoo train --resume runs/tiny-digits"' in taken.err
    over = dlzoo("train", "--resume", "runs/tiny-digits")
    assert over.status == 0
    assert over.out.splitlines()[-3:] == lines[-3:]


def test_json_is_one_document(dlzoo: RunCommand, tiny: str) -> None:
    ended = dlzoo("train", tiny, *SMALL, "--epochs", "1", "-o", "run", "--json")
    assert ended.status == 0, ended.err
    document = json.loads(ended.out)
    assert document["folder"] == "run"
    assert document["test"]["num_images"] == 360
    assert [row["epoch"] for row in document["epochs"]] == [1]


def test_lines_go_to_stdout_and_progress_to_the_terminal() -> None:
    """With stderr on a terminal and stdout in a file, as in ``dlzoo train … > log``."""
    code = (
        "from dlzoo.cli.training_display import training_display\n"
        "from dlzoo.zoo.train.loop.reports import EpochReport\n"
        "row = {'epoch': 1, 'train_loss': 0.5, 'images_per_second': 1.0, 'seconds': 1.0}\n"
        "with training_display() as display:\n"
        "    display.report(EpochReport(row, 2, True))\n"
    )
    controller, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=terminal, text=True
    )
    os.close(terminal)
    os.close(controller)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["epoch", "1/2"]


def test_ctrl_c_says_how_to_go_on(dlzoo: RunCommand, tmp_path: Path, tiny: str) -> None:
    command = ["train", tiny, *SMALL[:-1], "20", "--epochs", "400", "-o", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dlzoo", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        for _ in range(3):  # the header and two epochs
            assert process.stdout.readline()
        second = dlzoo("train", "--resume", "run")
        assert second.status == 2
        assert "Another process is training in run" in second.err
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait() == 130, errors
    assert errors == (
        "dlzoo: interrupted. Continue from the last checkpoint: dlzoo train --resume run\n"
    )
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    reports: list[Any] = []

    def stop(report: object) -> None:
        if isinstance(report, EpochReport):
            reports.append(report)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RunFolder.open(Path("run")).recipe, "run", resume=True, on_report=stop)
    assert [report.row["epoch"] for report in reports] == [len(rows) + 1]


@pytest.mark.parametrize(
    ("module", "package"), [("lightning_fabric", "lightning-fabric"), ("tomli_w", "tomli-w")]
)
def test_a_missing_package_of_training_is_one_line(
    tmp_path: Path, module: str, package: str
) -> None:
    # None in sys.modules is what Python itself takes for a module that cannot be found.
    code = (
        f"import sys; sys.modules[{module!r}] = None; "
        "sys.argv = ['dlzoo', 'train', 'lenet5_relu', '-o', 'run']; "
        "from dlzoo.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"dlzoo: This needs the package {package}, which is not installed. Run: pip install "
        '"dlzoo[train]"\n'
    )
    assert not list(tmp_path.iterdir())
