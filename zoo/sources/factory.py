"""A function of your own code that builds a network: ``package.module:factory``, ``file.py:factory``."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dlzoo.errors import ArgumentError, describe_exception
from dlzoo.zoo.sources.module import source_from_module
from dlzoo.zoo.sources.source import ModelSource, SourceOptions, refuse_options


def source_from_factory(home: str, name: str, options: SourceOptions) -> ModelSource:
    """Run the user's code, and take the module that it gives.

    torch's random stream starts from the seed, so that a factory which draws weights gives the
    same ones again, and goes on afterwards where it was.

    Args:
        home: ``package.module``, found as ``python -m`` finds it, or the path of a ``.py`` file.
        name: a module, a class without required arguments, or a function that gives a module.
        options: with its inputs.

    Raises:
        ArgumentError: it cannot be found, fails, or gives no module.
    """
    subject = f"{home}:{name}"
    refuse_options(subject, options, ["num_classes"])
    with _importable_from(Path(home).parent if home.endswith(".py") else Path.cwd()):
        module = _run(_import, subject, home)
        found = _attribute(module, home, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network = found if isinstance(found, nn.Module) else _run(found, subject)
        if not isinstance(network, nn.Module):
            raise ArgumentError(
                f"{subject} gave {type(network).__name__}, expected a torch.nn.Module. Let it "
                "return the network."
            )
        source = source_from_module(network, options, origin=_origin(home, name))
    return source


def _origin(home: str, name: str) -> str:
    """Where the code is, without the folder that it lies in."""
    return f"{Path(home).name if home.endswith('.py') else home}:{name}"


def _import(home: str) -> ModuleType:
    if not home.endswith(".py"):
        return importlib.import_module(home)
    path = Path(home).expanduser()
    if not path.is_file():
        raise ArgumentError(f"MODEL got {home!r}, expected a Python file. Check the path.")
    # Its own name, as a sibling file would import it; what has that name already stays.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_of_dlzoo_export"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(module: ModuleType, home: str, name: str) -> Any:
    if hasattr(module, name):
        found = getattr(module, name)
        if isinstance(found, nn.Module) or callable(found):
            return found
        raise ArgumentError(
            f"{home}:{name} is {type(found).__name__}, expected a torch.nn.Module or a function "
            "that gives one. Name the function."
        )
    public = [key for key in vars(module) if not key.startswith("_")]
    near = difflib.get_close_matches(name, public, n=3)
    offer = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Check the name."
    raise ArgumentError(f"{home} has nothing named {name!r}. {offer}")


def _run(function: Any, subject: str, *arguments: Any) -> Any:
    """Call the user's code, and say in one line where it failed."""
    try:
        return function(*arguments)
    except ArgumentError:
        raise
    except Exception as error:
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__
        ]
        own = [f for f in frames if "importlib" not in f.filename]
        line = getattr(error, "lineno", None) or (own[-1].lineno if own else None)
        file = Path(getattr(error, "filename", None) or (own[-1].filename if own else "")).name
        where = f" at {file}:{line}" if line and file else ""
        raise ArgumentError(
            f"{subject} cannot be built: {describe_exception(error)}{where}. Fix that, or "
            "name a function without required arguments."
        ) from None


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    """Let code import what lies beside it, as it would when run from there."""
    before = list(sys.path)
    sys.path.insert(0, str(folder.expanduser().resolve()))
    try:
        yield
    finally:
        sys.path[:] = before
