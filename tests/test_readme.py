"""The README's commands run as written, and print what it says they print.

A ``console`` block is one command and its output. Numbers may differ from run to run, words
may not. A block marked ``console weights`` needs published weights, which a package registry
holds; it is skipped where that is out of reach.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(
    r"^```console(?P<needs> weights)?\n\$ (?P<command>.*)\n(?P<output>(?s:.*?))^```", re.M
)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(README.read_text())]


def words(text: str) -> list[str]:
    """Text without its numbers and its line breaks; times and paths are not compared."""
    lines = [line for line in text.splitlines() if not line.startswith(("note: ", "seconds"))]
    return re.sub(r"[\d.,:x-]+", "#", " ".join(lines)).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    """Where the README's reader sits: some photos lie there."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("coffee.png", "chelsea.png"):
        shutil.copy(photo_folder / name, place)
    return place


def test_the_readme_shows_commands() -> None:
    shown = " ".join(block["command"] for block in BLOCKS)
    for command in ("models", "info", "export", "verify", "classify", "doctor"):
        assert f"dlzoo {command}" in shown


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_command_of_the_readme(
    number: int, folder: Path, request: pytest.FixtureRequest
) -> None:
    block = BLOCKS[number]
    if block["needs"]:
        weights = request.getfixturevalue("mobilenet_weights")
        if not (folder / weights.name).exists():
            shutil.copy(weights, folder)
    program, *arguments = shlex.split(block["command"])
    assert program == "dlzoo"
    done = subprocess.run(
        [sys.executable, "-m", "dlzoo", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if "doctor" in arguments:  # says what another machine has
        return
    expected, got = words(block["output"]), words(done.stdout)
    for word in expected:
        if word != "…":
            assert word in got, f"{word!r} is in the README and not in:\n{done.stdout}"
