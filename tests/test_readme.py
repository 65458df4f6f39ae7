"""The README's commands run as written, and print what the README shows.

A ``console`` block is one command and its output, compared word by word and in order. Only the errors
(rho2, rhomax) and scores may differ, as they do between processors, and the seconds and epochs of a
training run. A line ``…`` stands for any lines. ``console exit 1`` is a command that ends with that
status. A block marked ``console weights`` needs published weights from a package registry; it is
skipped where that cannot be reached.
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
    r"^```console(?P<needs> weights)?(?: exit (?P<status>\d))?\n\$ (?P<command>.*)\n(?P<output>(?s:.*?))^```",
    re.M,
)
BLOCKS = [match.groupdict() for match in BLOCK.finditer(README.read_text())]


#: An epoch of training: its loss, speed and seconds are the machine's.
EPOCH = re.compile(r"^ *\d+/\d+ ")
FRACTION = re.compile(r"(\d+\.\d{2,}|\d+\.\d+e[+-]\d+)[,;]?")
#: Another processor sums in another order, which moves an error of a few roundoffs this far.
MAX_FACTOR = 3.0
#: Scores of one photo, in thousandths.
SCORE_TOLERANCE = 0.002


def words(text: str) -> list[str]:
    """The words of an output that are compared: all but notes and the seconds of each stage."""
    kept: list[str] = []
    is_left_out = False
    for line in text.splitlines():
        is_left_out = (
            line.startswith(("note: ", "seconds"))
            or EPOCH.match(line) is not None
            or (is_left_out and line.startswith(" "))
        )
        if not is_left_out:
            kept += line.split()
    return kept


def is_same(expected: str, got: str, *, is_score: bool) -> bool:
    fractions = FRACTION.fullmatch(expected), FRACTION.fullmatch(got)
    if fractions[0] is None or fractions[1] is None:
        return expected == got
    a, b = float(fractions[0][1]), float(fractions[1][1])
    if is_score:
        return abs(a - b) <= SCORE_TOLERANCE
    return a == b or max(a, b) <= MAX_FACTOR * min(a, b)


def first_difference(expected: list[str], got: list[str], *, is_score: bool) -> str | None:
    """The first word that does not match, or None; ``…`` in ``expected`` ends the comparison."""
    for i, word in enumerate(expected):
        if word == "…":
            return None
        if i == len(got):
            return f"{word!r} and what follows is missing"
        if not is_same(word, got[i], is_score=is_score):
            return f"{' '.join(got[max(0, i - 5) : i])} {got[i]!r}, expected {word!r}"
    return None if len(got) == len(expected) else f"more than expected: {got[len(expected) :]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Path:
    """The folder in which the commands run, with photos and the small network."""
    place = tmp_path_factory.mktemp("readme")
    for name in ("coffee.png", "chelsea.png"):
        shutil.copy(photo_folder / name, place)
    shutil.copy(README.parent / "examples" / "small_net.py", place)
    return place


def test_the_readme_shows_commands() -> None:
    shown = README.read_text()
    names = "models info train evaluate export verify diff ops classify doctor"
    for command in names.split():
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
    assert done.returncode == int(block["status"] or 0), done.stderr
    if "doctor" in arguments:  # its output describes another machine
        return
    difference = first_difference(
        words(block["output"]), words(done.stdout), is_score="classify" in arguments
    )
    assert difference is None, f"{difference}\n{done.stdout}"


@pytest.mark.parametrize(
    ("expected", "got", "is_same_output"),
    [
        (
            "cpu all 2.03 pass\nseconds a 1.0,\n   b 2.0",
            "cpu all 1.80 pass\nseconds c 1.5",
            True,
        ),
        ("cpu all 2.03 pass", "cpu all 9.99 pass", False),
        ("rho2 1.5e+07, the", "rho2 2.51e+07, the", True),
        ("14.0 MB", "14.1 MB", False),
        ("10 of 10 faults", "9 of 10 faults", False),
        ("61,706", "61,707", False),
        ("one\n…\n", "one\ntwo three", True),
        ("one", "one two", False),
        ("one two", "one", False),
        ("two one", "one two", False),
    ],
)
def test_the_comparison_sees_a_changed_figure(
    expected: str, got: str, is_same_output: bool
) -> None:
    difference = first_difference(words(expected), words(got), is_score=False)
    assert (difference is None) == is_same_output
