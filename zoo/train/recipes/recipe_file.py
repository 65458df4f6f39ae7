"""Recipes as TOML: reading, with the line of every mistake, and writing, with every number."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from dlzoo.errors import RecipeError
from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.recipes.recipe_mistakes import describe_mistakes, kinds_of


def list_recipes() -> list[str]:
    """Names of the recipes that ship with dlzoo."""
    folder = resources.files("dlzoo.zoo.train.recipes")
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def read_recipe_text(name: str) -> tuple[str, str]:
    """The TOML of a recipe and its name in messages; the recipe is a file or ships with dlzoo.

    Raises:
        RecipeError: there is no such recipe, or the file cannot be read.
    """
    path = Path(name).expanduser()
    try:
        if path.suffix == ".toml" or path.is_file():
            return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RecipeError(
            f"`recipe` got {name!r}, which cannot be read: {reason}. Check the path."
        ) from None
    if name in list_recipes():
        file = resources.files("dlzoo.zoo.train.recipes") / f"{name}.toml"
        return file.read_text(encoding="utf-8"), f"{name}.toml"
    raise RecipeError(
        f"`recipe` got {name!r}, expected a .toml file or one of: {', '.join(list_recipes())}."
    )


def find_recipe(model: str, data: str) -> str | None:
    """The name of the recipe that ships for a model and a data set, or None if there is none."""
    for name in list_recipes():
        content = tomllib.loads(read_recipe_text(name)[0])
        if (content["model"]["name"], content.get("data", {}).get("name")) == (model, data):
            return name
    return None


def recipe_from_toml(
    text: str, subject: str, changes: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe and change some of its values.

    Args:
        text: TOML.
        subject: the recipe's name in messages.
        changes: values by dotted key, such as ``{"loop.epochs": 3}``.

    Raises:
        RecipeError: a mistake, with its line and key.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{subject} is not valid TOML: {error}. Fix that line.") from None
    # Names of kinds first: changing a kind removes the keys of the previous one.
    for key, value in sorted(
        (changes or {}).items(), key=lambda change: not _is_kind(change[0])
    ):
        _put(content, key.split("."), value, key)
    try:
        # As JSON, because only there a strict tuple may be written as a list. Strict, because
        # otherwise "3" would be a number and true a learning rate; a whole number is still a float.
        return Recipe.model_validate_json(json.dumps(content, default=_no_value), strict=True)
    except ValidationError as error:
        raise RecipeError(
            describe_mistakes(error, content, text, subject, set(changes or {}))
        ) from None


def recipe_to_toml(recipe: Recipe) -> str:
    """A recipe as TOML with every number, defaults included."""
    return tomli_w.dumps(recipe.resolved())


def parse_change(text: str) -> tuple[str, Any]:
    """Split ``loop.epochs=3`` into key and value; the value is TOML, or else plain text.

    Raises:
        RecipeError: there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            f"`set` got {text!r}, expected KEY=VALUE, for example loop.epochs=3."
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return key.strip(), parsed


def _no_value(value: Any) -> dict[str, str]:
    """A table in place of a date or time, which TOML has and no key of a recipe accepts."""
    return {type(value).__name__: str(value)}


def _put(content: dict[str, Any], parts: Sequence[str], value: Any, key: str) -> None:
    table: Any = content
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(
                f"{key}: {part} is not a table of the recipe. Write a key as docs/recipes.md lists it."
            )
    last = parts[-1]
    if _is_kind(key) and table.get("name") not in (None, value):
        table.clear()  # another kind has other keys
    table[last] = value


def _is_kind(key: str) -> bool:
    """Whether a dotted key selects one of several kinds of a table, such as ``loss.name``."""
    table, _, last = key.rpartition(".")
    return last == "name" and bool(kinds_of(table))
