"""dlzoo ops: the table fits a terminal, and the page in docs/ is the one that it writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from dlzoo.export.lowering.operator_table import markdown_page
from dlzoo.export.lowering.operators import OPERATORS

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dlzoo", "ops", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_table_has_every_spelling_in_80_columns() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for operator in OPERATORS.values():
        for lowering in operator.lowerings:
            (line,) = (
                text for text in lines if text.split()[:2] == [operator.name, lowering.key]
            )
            assert len(line.split()[-1]) == 5, "a mark for each target"


def test_one_spelling_is_taken_for_each_operator_and_opset() -> None:
    rows = json.loads(run("--json").stdout)
    for name in OPERATORS:
        taken = [row["taken"]["ort-cpu"] for row in rows if row["operator"] == name]
        assert sorted(opset for opsets in taken for opset in opsets) == [*range(11, 25)], name


def test_portable_takes_nothing_of_others() -> None:
    for row in json.loads(run("--json").stdout):
        if row["spelling"].startswith(("contrib", "custom")):
            assert row["usable"]["portable"] == []


def test_page_is_current() -> None:
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    assert page == markdown_page(), "dlzoo ops --markdown > docs/operators.md"


def test_opset_out_of_range_is_one_line() -> None:
    done = run("--opset", "9")
    assert done.returncode == 2
    assert done.stderr == ("dlzoo: --opset got 9, expected 11 to 24. 20 runs everywhere.\n")
