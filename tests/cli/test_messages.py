"""Arguments that a library message names are printed as flags by the command line."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from dlzoo.cli.main import app
from dlzoo.cli.messages import in_flags
from tests.support.dlzoo_process import run_dlzoo

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("command", "message", "expected"),
    [
        ("export", "`image_size` got 12, expected 32.", "--image-size got 12, expected 32."),
        ("export", "Leave `include_preprocessing` out.", "Leave --include-preprocessing out."),
        ("export", "`lowerings` got 'x'.", "--lowering got 'x'."),
        ("export", "`providers` and `inputs`", "--provider and --input"),
        ("verify", "`optimizations` got 'x'.", "--optimization got 'x'."),
        ("verify", "`timeout_s` passed.", "--timeout passed."),
        ("export", "`output` is taken.", "--output is taken."),
        ("train", "`set` got 'x'.", "--set got 'x'."),
        ("deploy", "`ensemble` needs images.", "--ensemble needs images."),
        ("verify", "`bundle` is a file.", "BUNDLE is a file."),
        ("serve", "`sources` is empty.", "BUNDLE...|MODEL_REPOSITORY is empty."),
        # The same word is no option of this command.
        ("info", "`image_size` got 12.", "image_size got 12."),
        ("export", "`loop.clip_norm` of `stem.0`", "loop.clip_norm of stem.0"),
        # With a value.
        ("export", "Write `batch=8`.", "Write --batch 8."),
        ("export", 'Write `head="softmax"`.', "Write --head softmax."),
        ("export", "Write `image_size=(32, 48)`.", "Write --image-size 32,48."),
        (
            "export",
            'Write `providers=("cpu", "cuda")`.',
            "Write --provider cpu --provider cuda.",
        ),
        (
            "export",
            'Write `lowerings={"mish": "function"}`.',
            "Write --lowering mish=function.",
        ),
        ("export", "Write `force=True`.", "Write --force."),
        (
            "verify",
            "Write `native_library='my dir/x.so'`.",
            "Write --native-library 'my dir/x.so'.",
        ),
        ("classify", "`k` is 0.", "--top is 0."),
        ("export", "Write `opset=N`.", "Write --opset N."),
        ("export", "Write `other=8`.", "Write other=8."),
        # Code that others quote stays as it is.
        ("export", "`isinstance(spec, Leaf)` is old", "`isinstance(spec, Leaf)` is old"),
    ],
)
def test_an_argument_is_shown_as_the_command_shows_it(
    command: str, message: str, expected: str
) -> None:
    assert in_flags(message, COMMANDS[command]) == expected


def test_without_a_command_only_the_backticks_go() -> None:
    assert in_flags("`head` got 'tail'.", None) == "head got 'tail'."


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["export", "lenet5_relu", "--head", "tail"], "--head got 'tail'"),
        (["export", "lenet5_relu", "--image-size", "8,8"], "--image-size got"),
        (["export", "lenet5_relu", "--opset", "3"], "--opset got 3"),
        (["export", "lenet5_relu", "--target", "moon"], "--target got 'moon'"),
        (["export", "lenet5_relu", "--lowering", "mish"], "--lowering got 'mish'"),
        (["export", "lenet5_relu", "--input", "x=1x3"], "--input"),
        (["export", "lenet5_relu", "--num-classes", "0"], "--num-classes got 0"),
        (["train", "lenet5_relu", "--device", "tpu"], "--device got 'tpu'"),
        (["train", "lenet5_relu", "--set", "loop"], "--set got 'loop'"),
        (["verify", "--server", "ftp://x", "nothing"], "nothing does not exist"),
        (["verify", "--server", "ftp://x", "BUNDLE"], "--server "),
        (["deploy", "BUNDLE", "--target", "moon", "-o", "x"], "--target "),
        (["deploy", "BUNDLE", "--target", "docker", "-o", "x", "--name", "a b"], "--name "),
        (
            ["deploy", "BUNDLE", "--target", "docker", "-o", "x", "--provider", "openvino"],
            "--provider ",
        ),
    ],
)
def test_a_mistake_is_told_in_flags(
    arguments: Sequence[str], expected: str, tmp_path: Path, lenet_bundle: Path
) -> None:
    words = [str(lenet_bundle) if word == "BUNDLE" else word for word in arguments]
    done = run_dlzoo(*words, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert expected in done.stderr
    assert "`" not in done.stderr
