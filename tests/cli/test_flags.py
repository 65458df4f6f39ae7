"""Names, order and flags of the command line change only on purpose."""

import re

import pytest

from dlzoo.cli.main import app

COMMANDS = {
    "models": {"--json"},
    "info": {"--json"},
    "ops": {"--opset", "--markdown", "--json"},
    "train": {
        "--data",
        "--data-root",
        "--recipe",
        "--output -o",
        "--resume",
        "--epochs",
        "--batch-size",
        "--lr",
        "--weights",
        "--image-size",
        "--seed",
        "--workers",
        "--precision",
        "--set",
        "--device",
        "--show-recipe",
        "--plot-schedule",
        "--json",
    },
    "evaluate": {
        "--data",
        "--data-root",
        "--split",
        "--bundle",
        "--provider",
        "--skip-corrupt",
        "--tables",
        "--json",
    },
    "export": {
        "--output -o",
        "--weights",
        "--input",
        "--num-classes",
        "--opset",
        "--batch",
        "--image-size",
        "--head",
        "--include-preprocessing",
        "--target",
        "--lowering",
        "--seed",
        "--provider",
        "--force",
        "--strict-special-values",
        "--json",
    },
    "verify": {
        "--provider",
        "--optimization",
        "--golden",
        "--rtol",
        "--atol",
        "--against",
        "--weights",
        "--seed",
        "--allow-fallback",
        "--server",
        "--model",
        "--data",
        "--timeout",
        "--native-library",
        "--strict-special-values",
        "--json",
    },
    "diff": {
        "--provider",
        "--input",
        "--golden",
        "--weights",
        "--seed",
        "--session-config",
        "--max-memory",
        "--report",
        "--json",
    },
    "classify": {"--provider", "--top -k", "--json"},
    "deploy": {
        "--target",
        "--output -o",
        "--check",
        "--name",
        "--provider",
        "--max-batch-size",
        "--ensemble",
        "--native-library",
        "--wheel",
        "--force",
        "--json",
    },
    "serve": {
        "--http",
        "--grpc",
        "--provider",
        "--allow-fallback",
        "--native-library",
        "--max-batch",
        "--max-delay-ms",
        "--queue-size",
        "--instances",
        "--threads",
        "--workers",
        "--timeout",
        "--max-request-mib",
        "--max-json-mib",
        "--max-pending-mib",
        "--max-image-pixels",
        "--refuse-non-finite",
        "--poll",
        "--keep-versions",
        "--fixed-models",
        "--api-key-file",
        "--tls-cert",
        "--tls-key",
        "--drain-delay",
        "--drain-timeout",
        "--json",
    },
    "doctor": {"--json"},
}


def test_commands_stand_in_flow_order() -> None:
    assert [command.name for command in app.registered_commands] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_of(name: str) -> None:
    import typer

    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    flags = {
        " ".join(sorted(parameter.opts, key=len, reverse=True))
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name != "help"
    }
    assert flags == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_says_what_it_does(name: str) -> None:
    import typer

    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert re.match(r"[A-Z].*\.", command.help or "")
    for parameter in command.params:
        assert getattr(parameter, "help", None), (name, parameter.name)
