"""The ``dlzoo`` command: its commands in the order in which a model flows through them."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from dlzoo.cli import (
    classify,
    deploy,
    diff,
    doctor,
    evaluate,
    export,
    info,
    models,
    ops,
    serve,
    train,
    verify,
)
from dlzoo.cli.interrupt import reliable_interrupts
from dlzoo.cli.messages import in_flags
from dlzoo.errors import DlzooError
from dlzoo.version import __version__

# Plain help: rich's boxes would double the start-up time of every command.
app = typer.Typer(
    name="dlzoo",
    help="Vision networks from PyTorch to ONNX, proved: define, export, verify, serve.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("models")(models.models)
app.command("info")(info.info)
app.command("ops")(ops.ops)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("verify")(verify.verify)
app.command("diff")(diff.diff)
app.command("classify")(classify.classify)
app.command("deploy")(deploy.deploy)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)


#: What a shell reports of a process that SIGINT ended: 128 + 2.
_INTERRUPTED = 130
#: Packages that training brings, by the module that is missing without them.
_OF_EXTRA_TRAIN = {
    "lightning_fabric": "lightning-fabric",
    "pydantic": "pydantic",
    "sklearn": "scikit-learn",
    "tomli_w": "tomli-w",
}


def _print_version(value: bool) -> None:
    if value:
        print(f"dlzoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line; every expected error is one line on stderr.

    Exit status: 0 done and proved, 1 a verdict failed, 2 the user's mistake or a missing
    piece, 130 interrupted.
    """
    try:
        with reliable_interrupts():
            status = app(standalone_mode=False) or 0
        sys.stdout.flush()
        if status == _INTERRUPTED:  # typer has caught the KeyboardInterrupt itself
            raise KeyboardInterrupt
    except DlzooError as error:
        status = error.exit_code
        _complain(in_flags(str(error), _running_command()))
        if status == _INTERRUPTED:
            _end_interrupted()
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
        _complain("interrupted; nothing was left behind.")
        _end_interrupted()
    except ModuleNotFoundError as error:
        package = _OF_EXTRA_TRAIN.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        status = 2
        _complain(
            f"This needs the package {package}, which is not installed. Run: pip install "
            '"dlzoo[train]"'
        )
    except BrokenPipeError:
        # The reader (head, less) went away; Python's own flush at exit must not complain too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except Exception as error:
        # Usage errors of click, which typer ships under a private name since 0.16.
        if not hasattr(error, "format_message"):
            raise
        status = 2
        if type(error).__name__ == "NoArgsIsHelpError":  # a bare `dlzoo`
            sys.exit(print(error.format_message(), file=sys.stderr) or status)
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "dlzoo"
        _complain(f'{error.format_message().rstrip(".")}. Run "{command} --help".')
    sys.exit(status)


def _end_interrupted() -> NoReturn:
    # Python ends itself by SIGINT if the interrupt hit code that a C extension runs while it is
    # imported, even if the exception was caught since: sys.exit would not give 130.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_INTERRUPTED)


def _running_command() -> Any | None:
    """The click command that the command line names: ``dlzoo`` has no options with values."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    words = (word for word in sys.argv[1:] if not word.startswith("-"))
    return commands.get(next(words, ""))


def _complain(message: str) -> None:
    print(f"dlzoo: {' '.join(message.split())}", file=sys.stderr)
