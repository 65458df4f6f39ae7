"""Recipes as TOML: read with the line of what is wrong, and written with every number."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from dlzoo.errors import RecipeError
from dlzoo.zoo.train.recipe import Recipe

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*("[^"]*"|'[^']*'|[\w-]+)((?:\s*\.\s*[\w-]+)*)\s*=""")
#: pydantic's words for what this package says its own way.
_EXPECTATIONS = {
    "missing": "a value, got none",
    "extra_forbidden": "no such key",
    "union_tag_not_found": "a key name that says which kind",
}


def list_recipes() -> list[str]:
    """Names of the recipes that ship with dlzoo."""
    folder = resources.files("dlzoo.zoo.train.recipes")
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def read_recipe_text(name: str) -> tuple[str, str]:
    """The TOML of a recipe, and what to call it: a file, or the name of one that ships.

    Raises:
        RecipeError: there is none.
    """
    path = Path(name).expanduser()
    try:
        if path.suffix == ".toml" or path.is_file():
            return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RecipeError(
            f"--recipe got {name!r}, which cannot be read: {reason}. Check the path."
        ) from None
    if name in list_recipes():
        file = resources.files("dlzoo.zoo.train.recipes") / f"{name}.toml"
        return file.read_text(encoding="utf-8"), f"{name}.toml"
    raise RecipeError(
        f"--recipe got {name!r}, expected a .toml file or one of: {', '.join(list_recipes())}."
    )


def find_recipe(model: str, data: str) -> str | None:
    """The name of the recipe that ships for a model and a data set, or None."""
    for name in list_recipes():
        content = tomllib.loads(read_recipe_text(name)[0])
        if (content["model"]["name"], content.get("data", {}).get("name")) == (model, data):
            return name
    return None


def recipe_from_toml(
    text: str, subject: str, changes: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe, with what the command line says in place of what it has.

    Args:
        text: TOML.
        subject: what messages call it.
        changes: values by dotted key, such as ``{"loop.epochs": 3}``.

    Raises:
        RecipeError: the line and the key of what is wrong.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{subject} is no TOML: {error}. Mend that line.") from None
    for key, value in (changes or {}).items():
        _put(content, key.split("."), value, key)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(_describe(error, text, subject, set(changes or {}))) from None


def recipe_to_toml(recipe: Recipe) -> str:
    """Every number of a recipe, those it did not name included."""
    return tomli_w.dumps(recipe.resolved())


def parse_change(text: str) -> tuple[str, Any]:
    """``loop.epochs=3`` as key and value; the value is TOML, or else a text.

    Raises:
        RecipeError: it has no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            f"--set got {text!r}, expected KEY=VALUE. Write for example --set loop.epochs=3."
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return key.strip(), parsed


def _put(content: dict[str, Any], parts: Sequence[str], value: Any, key: str) -> None:
    table: Any = content
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(
                f"--set {key}: {part} is no table of the recipe. Name a key as it is written there."
            )
    last = parts[-1]
    if last == "name" and isinstance(table.get("name"), str) and table["name"] != value:
        table.clear()  # another kind has other keys
    table[last] = value


# -- what is wrong, and where ----------------------------------------------------------------------


def _describe(error: ValidationError, text: str, subject: str, changed: set[str]) -> str:
    """One line on the first mistake, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = [part for part in first["loc"] if not _is_tag(part, first["loc"], error)]
    key = ".".join(str(part) for part in path) or "the recipe"
    line = _line_of(text, path)
    where = f"{subject}, line {line}" if line and key not in changed else subject
    kind, message = first["type"], first["msg"]
    if kind == "extra_forbidden":
        known = _keys_beside(path)
        said = f"{key}: no such key. Take it out" + (
            f", or write one of {known}." if known else "."
        )
    elif kind == "missing":
        said = f"{key}: expected a value, got none. Write it."
    elif kind == "union_tag_invalid":
        said = f"{key}: got name = {first['ctx']['tag']!r}, expected one of {first['ctx']['expected_tags']}."
    elif kind == "union_tag_not_found":
        said = f'{key}: expected a key name that says which kind. Write name = "…".'
    else:
        message = message.removeprefix("Value error, ")
        shown = repr(first["input"])
        got = "" if kind == "value_error" else f" got {shown[:60]},"
        expected = message.removeprefix("Input should be ")
        said = f"{key}:{got} expected {expected}." if got else f"{key}: {expected}."
    more = f" ({len(problems) - 1} more mistakes.)" if len(problems) > 1 else ""
    return f"{where}: {said}{more}"


def _is_tag(part: int | str, loc: tuple[int | str, ...], error: ValidationError) -> bool:
    """Whether a step of pydantic's path is the kind that ``name`` chose, and no key of the file."""
    index = loc.index(part)
    if not isinstance(part, str) or index == 0:
        return False
    return part in _tags(loc[0])


def _tags(field: int | str) -> set[str]:
    """The names of the kinds that a field of the recipe can be."""
    schema = Recipe.model_json_schema(by_alias=True)
    text = schema["properties"].get(str(field), {})
    mapping = text.get("discriminator") or text.get("items", {}).get("discriminator") or {}
    return set(mapping.get("mapping", ()))


def _keys_beside(path: Sequence[int | str]) -> str:
    """What could have been written in the place of an unknown key."""
    fields: Any = Recipe.model_fields
    if len(path) == 1:
        return ", ".join(fields)
    field = fields.get(str(path[0]))
    inner = getattr(field.annotation, "model_fields", None) if field else None
    return ", ".join(inner) if inner and len(path) == 2 else ""


def _line_of(text: str, path: Sequence[int | str]) -> int | None:
    """The line that has a key, or else the header of its table; from 1."""
    wanted = [str(part) for part in path if isinstance(part, str)]
    element = next((part for part in path if isinstance(part, int)), None)
    table: list[str] = []
    counts: dict[str, int] = {}
    best: tuple[int, int] | None = None  # (how many steps match, line)
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            table = [part.strip().strip("\"'") for part in header[2].split(".")]
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
            here = table
        else:
            key = _KEY.match(line)
            if not key:
                continue
            here = [*table, key[1].strip("\"'"), *re.findall(r"[\w-]+", key[2])]
        is_element = element is None or counts.get(".".join(table), element) == element
        depth = sum(1 for _ in _common(here, wanted))
        if is_element and depth == len(here) and (best is None or depth > best[0]):
            best = (depth, number)
    return best[1] if best else None


def _common(a: Sequence[str], b: Sequence[str]) -> Sequence[str]:
    shared = []
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared.append(x)
    return shared
