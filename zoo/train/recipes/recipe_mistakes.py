"""Messages about mistakes in a recipe, with the line of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import ValidationError

from dlzoo.zoo.settings import Settings
from dlzoo.zoo.train.recipes.recipe import Recipe

Path = tuple[int | str, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*("[^"]*"|'[^']*'|[\w-]+)((?:\s*\.\s*[\w-]+)*)\s*=""")
#: Expected values in TOML's words, by pydantic's type of error.
_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type", "mapping_type"), "a table"
    ),
    "string_type": "a text",
    "finite_number": "a finite number",
}


@cache
def kinds_of(field: str) -> dict[str, type[Settings]]:
    """The kinds that a table of the recipe can have, by name; empty if it has only one."""
    if field not in Recipe.model_fields:
        return {}
    annotation = Recipe.model_fields[field].annotation
    members = [m for m in _members(annotation) if "name" in m.model_fields]
    # Kinds have a fixed name; the name of a model or a data set is free.
    named = {m: get_args(m.model_fields["name"].annotation) for m in members}
    return {str(names[0]): member for member, names in named.items() if names}


def _members(annotation: Any) -> list[type[Settings]]:
    """The settings classes in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [member for part in get_args(annotation) for member in _members(part)]


def describe_mistakes(
    error: ValidationError,
    content: Mapping[str, Any],
    text: str,
    subject: str,
    changed: set[str],
) -> str:
    """One line on the first mistake, with the number of further ones.

    Args:
        error: pydantic's error.
        content: the values that were checked.
        text: the TOML they come from, in which lines are looked up.
        subject: the recipe's name in messages.
        changed: dotted keys whose values were changed after reading the text.
    """
    # A value that may have one of several types gets one error for each type.
    mistakes: dict[Path, list[Any]] = {}
    for problem in error.errors(include_url=False):
        mistakes.setdefault(_path_in_file(problem, content), []).append(problem)
    path, problems = next(iter(mistakes.items()))
    key = ".".join(map(str, path))
    tables = {name.removesuffix("name") for name in changed if name.endswith(".name")}
    if key in changed or key.startswith((*tables, *(f"{name}." for name in changed))):
        # A change of kind also changes which keys are needed.
        where = "Change of the recipe"
    else:
        line = _line_of(text, path)
        where = f"{subject}, line {line}" if line else subject
    others = len(mistakes) - 1
    more = f" ({others} more mistake{'s' * (others > 1)}.)" if others else ""
    return f"{where}: {key + ': ' if key else ''}{_said(path, problems, content)}{more}"


def _said(path: Path, problems: Sequence[Any], content: Mapping[str, Any]) -> str:
    first = problems[0]
    match first["type"]:
        case "extra_forbidden":
            known = _keys_beside(path, content)
            return f"no such key. Remove it, or use one of {', '.join(known)}."
        case "missing" | "union_tag_not_found":
            kinds = kinds_of(str(path[0])) if path[-1] == "name" else {}
            choice = f"one of {', '.join(map(repr, kinds))}" if kinds else "a value"
            return f"expected {choice}, got none. Add it."
        case "union_tag_invalid":
            kinds = kinds_of(str(path[0]))
            return (
                f"got {first['ctx']['tag']!r}, expected one of {', '.join(map(repr, kinds))}."
            )
        case "value_error":
            message: str = first["msg"].removeprefix("Value error, ")
            return f"{message}."
    expected = dict.fromkeys(
        _EXPECTED.get(problem["type"]) or problem["msg"].removeprefix("Input should be ")
        for problem in problems
    )
    return f"got {_short(first['input'])}, expected {' or '.join(expected)}."


def _short(value: Any) -> str:
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


def _path_in_file(problem: Any, content: Mapping[str, Any]) -> Path:
    """The keys in the file that belong to pydantic's path.

    Pydantic's path also contains the kind chosen by ``name`` and the type it tried.
    """
    path: list[int | str] = []
    place: Any = content
    kinds: dict[str, type[Settings]] = {}
    for part in problem["loc"]:
        if part in kinds and path[1:] == [p for p in path[1:] if isinstance(p, int)]:
            continue
        if isinstance(place, dict):
            place = place.get(part)
        elif isinstance(place, list | tuple) and isinstance(part, int):
            place = place[part] if part < len(place) else None
        else:
            break
        path.append(part)
        if len(path) == 1:
            kinds = kinds_of(str(part))
    if problem["type"].startswith("union_tag"):
        path.append("name")
    return tuple(path)


def _keys_beside(path: Path, content: Mapping[str, Any]) -> list[str]:
    """The keys that are allowed in place of an unknown one."""
    keys: type[Settings] = Recipe
    place: Any = content
    for part in path[:-1]:
        place = place[part]
        if isinstance(part, str):
            field = part
        kinds = kinds_of(field)
        if kinds and isinstance(place, dict):
            keys = kinds[place["name"]]
        elif not kinds:
            keys = _members(keys.model_fields[field].annotation)[0]
    return list(keys.model_fields)


def _line_of(text: str, path: Path) -> int | None:
    """The line of a key, counted from 1, or else that of the header of its table."""
    wanted = [str(part) for part in path if isinstance(part, str)]
    element = next((part for part in path if isinstance(part, int)), None)
    table: list[str] = []
    counts: dict[str, int] = {}
    best: tuple[int, int] | None = None  # (number of matching keys, line)
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            table = [part.strip().strip("\"'") for part in header[2].split(".")]
            if header[1] == "[[":
                counts[".".join(table)] = counts.get(".".join(table), -1) + 1
            here = table
        else:
            key = _KEY.match(line)
            if not key:
                continue
            here = [*table, key[1].strip("\"'"), *re.findall(r"[\w-]+", key[2])]
        # The elements of a list on one line have no tables of their own.
        is_element = counts.get(".".join(table), element) == element or element is None
        if (
            is_element
            and here == wanted[: len(here)]
            and (best is None or len(here) > best[0])
        ):
            best = (len(here), number)
    return best[1] if best else None
