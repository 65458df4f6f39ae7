"""docs/serving.md names options, addresses and metrics that exist."""

import re
from pathlib import Path

import httpx
import typer

from dlzoo.cli.main import app
from tests.support.serving_process import ServingProcess

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text()


def test_options_exist() -> None:
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)) - {"--weights", "--data-binary"}
    assert named and named <= options


def test_metrics_exist_and_are_all_named(server: ServingProcess) -> None:
    shown = httpx.get(f"{server.http}/metrics").text
    exist = set(re.findall(r"^# TYPE (dlzoo_\w+) ", shown, re.MULTILINE)) - {
        "dlzoo_build_info"
    }
    assert set(re.findall(r"`(dlzoo_\w+)(?=[`{])", TEXT)) == exist


def test_addresses_are_documented_ones(server: ServingProcess) -> None:
    paths = httpx.get(f"{server.http}/openapi.json").json()["paths"]
    named = re.findall(r"(?:GET|POST) (/[\w/]+)", TEXT.replace("/M", "/{model}"))
    for address in named:
        assert any(path.startswith(address) for path in paths), address
