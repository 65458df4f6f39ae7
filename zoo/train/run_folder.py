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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dlzoo.errors import ArgumentError, CheckpointError, StorageError
from dlzoo.zoo.train.checkpoint import replaced_file
from dlzoo.zoo.train.recipe import Recipe
from dlzoo.zoo.train.recipe_file import recipe_from_toml, recipe_to_toml

RECIPE, FACTS, LAST, BEST, TEST = (
    "recipe.toml",
    "run.json",
    "last.safetensors",
    "best.safetensors",
    "test.json",
)
SAMPLES = "samples.png"
#: Plots, by what they show.
CURVES = {"loss": "loss.svg", "top1_percent": "accuracy.svg"}


def is_run(path: Path) -> bool:
    """Whether a folder is that of a training run."""
    return (path / RECIPE).is_file() and (path / FACTS).is_file()


class RunFolder:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunFolder:
        """Start a new one.

        Raises:
            ArgumentError: there is something already.
            StorageError: it cannot be written.
        """
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                advice = (
                    f"Go on with it by --resume {path}, or name another folder with -o."
                    if is_run(path)
                    else "Name another folder with -o."
                )
                raise ArgumentError(f"{path} is there already and is not empty. {advice}")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"Cannot make the folder {path}: {error.strerror}. Name another with -o."
            ) from None
        folder = cls(path)
        with replaced_file(path / RECIPE) as part:
            part.write_text(recipe_to_toml(recipe))
        return folder

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
        """
        return recipe_from_toml(
            (self.path / RECIPE).read_text(encoding="utf-8"), str(self.path / RECIPE)
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says.

        Raises:
            CheckpointError: it is not there or damaged.
        """
        facts = self._read_json(FACTS)
        if not isinstance(facts, dict):
            raise CheckpointError(f"{self.path / FACTS} is damaged. Start the run again.")
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
            part.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")

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
        """Keep other processes from writing here.

        Raises:
            ArgumentError: another process trains here now.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ArgumentError(
                f"Another process trains in {self.path} now. Wait for it, or name another folder."
            ) from None
        try:
            yield
        finally:
            lock.release()
