"""docs/recipes.md: every key of a recipe, generated from the classes that check them.

python -m dlzoo.zoo.train.recipes.recipe_reference > docs/recipes.md
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dlzoo.zoo.settings import Settings
from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.recipes.recipe_file import list_recipes

_SIGNS = (
    (Ge, "ge", "at least"),
    (Gt, "gt", "above"),
    (Le, "le", "at most"),
    (Lt, "lt", "below"),
)


def recipe_reference() -> str:
    """The page, as Markdown."""
    lines = [
        "# Recipes: every number of a training run",
        "",
        "A recipe is a TOML file. `dlzoo train --recipe FILE` reads it, and `--set` changes any "
        "of its keys on the command line: `--set loop.clip_norm=1`. A key that a recipe leaves "
        "out has the default below; the run's folder holds a `recipe.toml` with every number, "
        "and `dlzoo train … --show-recipe` prints it without training.",
        "",
        "This page is generated: `python -m dlzoo.zoo.train.recipes.recipe_reference`.",
        "",
        f"Recipes that ship, for `--recipe NAME`: {', '.join(f'`{n}`' for n in list_recipes())}.",
    ]
    plain = [n for n, f in Recipe.model_fields.items() if not list(_kinds(f.annotation))]
    lines += ["", "## At the top", "", *_table(Recipe, only=plain)]
    for name, field in Recipe.model_fields.items():
        kinds = list(_kinds(field.annotation))
        if not kinds:
            continue
        is_list = get_origin(field.annotation) is tuple
        lines += ["", f"## `{'[[' if is_list else '['}{name}{']]' if is_list else ']'}`", ""]
        if len(kinds) == 1:
            lines += [_first_paragraph(kinds[0]), "", *_table(kinds[0])]
            continue
        what = "any number of these, in this order" if is_list else "one of these"
        lines.append(f"`name` chooses {what}.")
        shared = _shared_fields(kinds)
        if shared:
            lines += ["", "Keys of all of them:", "", *_table(kinds[0], only=shared)]
        for kind in kinds:
            own = [key for key in kind.model_fields if key not in (*shared, "name")]
            lines += [
                "",
                f"### `{kind.model_fields['name'].default}`",
                "",
                _first_paragraph(kind),
            ]
            if own:
                lines += ["", *_table(kind, only=own)]
    return "\n".join(lines) + "\n"


def _kinds(annotation: Any) -> Iterator[type[Settings]]:
    """The settings classes that a field can hold."""
    if inspect.isclass(annotation) and issubclass(annotation, Settings):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType, tuple):
        for part in get_args(annotation):
            yield from _kinds(part)


def _shared_fields(kinds: list[type[Settings]]) -> list[str]:
    """Keys with the same meaning in every kind."""
    first = kinds[0].model_fields
    return [
        name
        for name, field in first.items()
        if name != "name"
        and all(
            name in kind.model_fields
            and kind.model_fields[name].annotation == field.annotation
            and kind.model_fields[name].default == field.default
            for kind in kinds
        )
    ]


def _first_paragraph(kind: type[Settings]) -> str:
    text = inspect.getdoc(kind) or ""
    blocks = text.split("\n\n")
    shown = [" ".join(block.split()) for block in blocks[:2]]
    # The formula, if it comes next.
    formula = shown[1] if len(shown) > 1 and shown[1].startswith("`") else ""
    return _markdown(f"{shown[0]} {formula}".strip())


def _markdown(text: str) -> str:
    """A docstring's markup as Markdown."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split())


def _table(kind: type[Settings], only: list[str] | None = None) -> list[str]:
    rows = ["| key | value | default | |", "| --- | --- | --- | --- |"]
    for name, field in kind.model_fields.items():
        if only is not None and name not in only:
            continue
        meaning = _markdown(field.description or "")
        rows.append(f"| `{name}` | {_type_text(field)} | {_default(field)} | {meaning} |")
    return rows


def _type_text(field: FieldInfo) -> str:
    bounds = [
        f"{word} {getattr(mark, attribute):g}"
        for mark in field.metadata
        for kind, attribute, word in _SIGNS
        if isinstance(mark, kind)
    ]
    return " ".join([_plain(field.annotation), ", ".join(bounds)]).strip().replace("|", "\\|")


def _plain(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is Annotated:
        return _plain(parts[0])
    if origin in (Union, UnionType):
        return " or ".join(_plain(part) for part in parts if part is not type(None))
    if origin is tuple:
        item = _plain(parts[0])
        return f"list of {item}{'s' if item.startswith(('whole', 'number', 'text')) else ''}"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, "table")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value!r}`" if isinstance(value, str) else f"`{value}`"


if __name__ == "__main__":
    print(recipe_reference(), end="")
