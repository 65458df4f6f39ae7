"""The folder of a training run: its files, and who may write to it.

recipe.toml          every number of the run
run.json             data, classes, preprocessing, network, versions
last.safetensors     the last checkpoint, to resume from
best.safetensors     the weights to use
metrics.jsonl .csv   one row per epoch
curves.svg           loss and accuracy
samples.png          augmented inputs, as the network sees them
test.json            the result on the test images, with confusion.csv and classes.csv
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dlzoo.errors import ArgumentError, CheckpointError, StorageError
from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.recipes.recipe_file import recipe_from_toml, recipe_to_toml
from dlzoo.zoo.train.run.checkpoint import replaced_file

RECIPE, FACTS, LAST, BEST, TEST = (
    "recipe.toml",
    "run.json",
    "last.safetensors",
    "best.safetensors",
    "test.json",
)
SAMPLES = "samples.png"
_LOCK = ".lock"
#: Entries that ``run.json`` must have.
_FACT_KINDS = {
    "class_names": list,
    "input_shape": list,
    "preprocessing": dict,
    "data": dict,
    "num_processes": int,
    "num_threads": int,
}
#: Plots, by the figure they show.
CURVES = {"loss": "loss.svg", "top1_percent": "accuracy.svg"}


def is_run(path: Path) -> bool:
    """Whether a folder is a training run."""
    return (path / RECIPE).is_file() and (path / FACTS).is_file()


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def require_new(self) -> None:
        """Check that a run can begin in this folder, without writing anything.

        Raises:
            ArgumentError: the folder is not empty.
            StorageError: the folder cannot be written to.
        """
        path = self.path
        try:
            if path.is_dir():
                is_taken = any(not _is_leftover(entry.name) for entry in path.iterdir())
            else:
                is_taken = path.exists() or path.is_symlink()
            if is_taken:
                advice = (
                    f'Continue it with "dlzoo train --resume {path}", or name another folder.'
                    if (path / RECIPE).is_file()
                    else "Name another folder."
                )
                raise ArgumentError(f"{path} exists and is not empty. {advice}")
            parent = next(
                place for place in (path, *path.absolute().parents) if place.exists()
            )
        except OSError as error:
            raise _unwritable(path, error.strerror) from None
        if not parent.is_dir():
            raise _unwritable(path, f"{parent} is not a folder")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise _unwritable(path, f"{parent} cannot be written to")

    def create(self, recipe: Recipe) -> None:
        """Make the folder with the recipe in it; the caller holds the lock of :meth:`locked`.

        Raises:
            ArgumentError: the folder is not empty.
            StorageError: the folder cannot be written to.
        """
        self.require_new()
        with replaced_file(self.path / RECIPE) as part:
            part.write_text(recipe_to_toml(recipe), encoding="utf-8")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run in an existing folder.

        Raises:
            ArgumentError: the folder is not a training run.
        """
        if not (path / RECIPE).is_file():
            raise ArgumentError(
                f"{path} is not a training run: it has no {RECIPE}. Name a folder that dlzoo train "
                "wrote."
            )
        return cls(path)

    @property
    def recipe(self) -> Recipe:
        """Every number of the run.

        Raises:
            RecipeError: the recipe was edited and is now wrong.
            CheckpointError: the recipe cannot be read.
        """
        path = self.path / RECIPE
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise CheckpointError(
                f"{path} cannot be read: {reason}. Start the run again."
            ) from None
        return recipe_from_toml(text, str(path))

    @property
    def facts(self) -> dict[str, Any]:
        """The contents of ``run.json``.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        document = self._read_json(FACTS)
        facts: dict[str, Any] = document if isinstance(document, dict) else {}
        for key, kind in _FACT_KINDS.items():
            if not isinstance(facts.get(key), kind):
                raise CheckpointError(
                    f"{self.path / FACTS} is damaged: it has no {key}. Start the run again."
                )
        return facts

    @property
    def test(self) -> dict[str, Any] | None:
        """The result on the test images, or None before the run is done.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not (self.path / TEST).is_file():
            return None
        result = self._read_json(TEST)
        return result if isinstance(result, dict) else None

    def write_json(self, name: str, document: Any) -> None:
        """Write a JSON document of the run, atomically."""
        with replaced_file(self.path / name) as part:
            part.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", "utf-8")

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not JSON"
            raise CheckpointError(
                f"{self.path / name} cannot be read: {reason}. Start the run again."
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if needed, and keep other processes from writing to it.

        Raises:
            ArgumentError: another process is training in this folder.
            StorageError: the folder cannot be written to.
        """
        lock = FileLock(self.path / _LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise ArgumentError(
                f"Another process is training in {self.path}. Wait for it, or name another folder."
            ) from None
        except OSError as error:
            raise _unwritable(self.path, error.strerror) from None
        try:
            yield
        finally:
            lock.release()


def _is_leftover(name: str) -> bool:
    """Whether a file may remain from a process that was killed at its start."""
    return name == _LOCK or (name.startswith(".") and name.endswith(".part"))


def _unwritable(path: Path, reason: str | None) -> StorageError:
    return StorageError(
        f"Cannot make the folder {path}: {reason or 'it cannot be written to'}. Name another one."
    )
