"""The folder of a training run: what lies in it under which name, and who may write there.

recipe.toml          every number of the run
run.json             data, classes, preprocessing, network, versions
last.safetensors     where the run stands: resume from here
best.safetensors     the weights to use
metrics.jsonl .csv   one row an epoch
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
#: What ``run.json`` cannot do without.
_FACT_KINDS = {
    "class_names": list,
    "input_shape": list,
    "preprocessing": dict,
    "data": dict,
    "num_processes": int,
    "num_threads": int,
}
#: Plots, by what they show.
CURVES = {"loss": "loss.svg", "top1_percent": "accuracy.svg"}


def is_run(path: Path) -> bool:
    """Whether a folder is that of a training run."""
    return (path / RECIPE).is_file() and (path / FACTS).is_file()


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def require_new(self) -> None:
        """Check that a run can begin here; nothing is written yet.

        Raises:
            ArgumentError: there is something already.
            StorageError: it cannot be written.
        """
        path = self.path
        try:
            if path.is_dir():
                is_taken = any(not _is_leftover(entry.name) for entry in path.iterdir())
            else:
                is_taken = path.exists() or path.is_symlink()
            if is_taken:
                advice = (
                    f"Go on with it by --resume {path}, or name another folder with -o."
                    if (path / RECIPE).is_file()
                    else "Name another folder with -o."
                )
                raise ArgumentError(f"{path} is there already and is not empty. {advice}")
            parent = next(
                place for place in (path, *path.absolute().parents) if place.exists()
            )
        except OSError as error:
            raise _unwritable(path, error.strerror) from None
        if not parent.is_dir():
            raise _unwritable(path, f"{parent} is no folder")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise _unwritable(path, f"{parent} cannot be written")

    def create(self, recipe: Recipe) -> None:
        """Make the folder, with the recipe in it; to be called by who has it :meth:`locked`.

        Raises:
            ArgumentError: there is something already.
            StorageError: it cannot be written.
        """
        self.require_new()
        with replaced_file(self.path / RECIPE) as part:
            part.write_text(recipe_to_toml(recipe), encoding="utf-8")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """One that is there.

        Raises:
            ArgumentError: it is no run.
        """
        if not (path / RECIPE).is_file():
            raise ArgumentError(
                f"{path} is no training run: it has no {RECIPE}. Give the folder that dlzoo "
                "train wrote."
            )
        return cls(path)

    @property
    def recipe(self) -> Recipe:
        """Every number of the run.

        Raises:
            RecipeError: somebody changed it for the worse.
            CheckpointError: it cannot be read.
        """
        path = self.path / RECIPE
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise CheckpointError(
                f"{path} cannot be read: {reason}. Start the run again."
            ) from None
        return recipe_from_toml(text, str(path))

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says.

        Raises:
            CheckpointError: it is not there or damaged.
        """
        document = self._read_json(FACTS)
        facts: dict[str, Any] = document if isinstance(document, dict) else {}
        for key, kind in _FACT_KINDS.items():
            if not isinstance(facts.get(key), kind):
                raise CheckpointError(
                    f"{self.path / FACTS} is damaged: it says nothing of {key}. Start the run "
                    "again."
                )
        return facts

    @property
    def test(self) -> dict[str, Any] | None:
        """The result on the test images, once the run is done.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not (self.path / TEST).is_file():
            return None
        result = self._read_json(TEST)
        return result if isinstance(result, dict) else None

    def write_json(self, name: str, document: Any) -> None:
        """Write a document of the run, whole."""
        with replaced_file(self.path / name) as part:
            part.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", "utf-8")

    def _read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no JSON"
            raise CheckpointError(
                f"{self.path / name} cannot be read: {reason}. Start the run again."
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here; makes the folder.

        Raises:
            ArgumentError: another process trains here now.
            StorageError: it cannot be written.
        """
        lock = FileLock(self.path / _LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise ArgumentError(
                f"Another process trains in {self.path} now. Wait for it, or name another folder."
            ) from None
        except OSError as error:
            raise _unwritable(self.path, error.strerror) from None
        try:
            yield
        finally:
            lock.release()


def _is_leftover(name: str) -> bool:
    """Whether a file is all that a process which was killed at its start has left."""
    return name == _LOCK or (name.startswith(".") and name.endswith(".part"))


def _unwritable(path: Path, reason: str | None) -> StorageError:
    return StorageError(
        f"Cannot make the folder {path}: {reason or 'it cannot be written'}. Name another with -o."
    )
