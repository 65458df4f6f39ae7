"""The commands in docs/deploy run: those that need only our own server."""

import re
import shutil
from pathlib import Path

import pytest

from dlzoo.cli.main import app
from tests.support.dlzoo_process import run_dlzoo

PAGES = sorted((Path(__file__).resolve().parents[2] / "docs" / "deploy").glob("*.md"))


def commands_of(page: Path) -> list[list[str]]:
    """The ``dlzoo deploy`` lines of a page, in order."""
    lines = re.findall(r"^    dlzoo (deploy .+)$", page.read_text(), re.MULTILINE)
    return [line.split() for line in lines]


def test_every_target_has_a_page() -> None:
    from dlzoo.runtime.deploy.deployment import TARGETS

    assert {page.stem for page in PAGES} == {*TARGETS, "verify_server"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands_of(page)], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_run(
    page: Path, lenet_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(lenet_bundle, tmp_path / "lenet")
    monkeypatch.chdir(tmp_path)
    commands = commands_of(page)
    assert [command[1] for command in commands] == ["lenet", "--check"]
    for command in commands:
        # In this process: what a process of its own does with them is in test_deploy.py.
        assert not app(command, standalone_mode=False), command


def test_every_option_that_a_page_names_is_there() -> None:
    known = "".join(run_dlzoo(name, "--help").stdout for name in ("deploy", "verify", "serve"))
    for page in PAGES:
        for line in re.findall(r"^    dlzoo .+$", page.read_text(), re.MULTILINE):
            for option in re.findall(r"--[a-z-]+", line):
                assert option in known or option == "--weights", (page.name, option)
