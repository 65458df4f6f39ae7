"""Check a JSON document against a schema that is a small table.

A schema is one of

    str, int, bool, ...      a value of that type (a bool is not an int); a tuple allows several
    ANY                      any value
    frozenset({...})         one of these values
    Text(pattern, example)   a text that the whole pattern matches
    [schema]                 a list of such values
    {"key": schema}          an object with these keys; "key?" may be absent, and "*" stands for
                             every other key: without it, a key that is not named is a problem
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlzoo.runtime.deploy.problem import Problem

ANY = object()
_NAMES = {str: "a text", int: "a whole number", bool: "true or false", dict: "an object"}


@dataclass(frozen=True)
class Text:
    """A text that ``pattern`` matches as a whole; messages show ``example`` in its place."""

    pattern: str
    example: str


#: Names of Kubernetes objects. Source: RFC 1123, section 2.1; at most 63 characters.
DNS_LABEL = Text(
    r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "lower-case letters, digits and '-', at most 63"
)


def write_json(path: Path, document: Any) -> None:
    """Write a document in the order given, without NaN, with a newline at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def read_json(folder: Path, name: str) -> tuple[Any, list[Problem]]:
    """Read a document: it and no problem, or None and the problem, with line and column."""
    try:
        return json.loads(
            (folder / name).read_text(encoding="utf-8"), object_pairs_hook=_once
        ), []
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        return None, [Problem(name, place, f"is not JSON: {error.msg}")]
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        return None, [Problem(name, "", f"cannot be read as JSON: {error}")]
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else error.strerror
        return None, [Problem(name, "", str(reason))]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object with a repeated key: json would silently keep the last value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in names if names.count(k) > 1)!r} appears twice")
    return found


def structure_problems(
    document: Any, schema: Any, file: str, place: str = ""
) -> Iterator[Problem]:
    """Find every place of a document that breaks its schema, by its path (``spec.ports[0]``)."""
    wrong = _value_problem(document, schema)
    if wrong:
        yield Problem(file, place or "the document", wrong)
    elif isinstance(schema, list):
        for i, item in enumerate(document):
            yield from structure_problems(item, schema[0], file, f"{place}[{i}]")
    elif isinstance(schema, dict):
        known = {key.removesuffix("?"): key for key in schema}
        for key, name in known.items():
            if name == key != "*" and key not in document:
                yield Problem(file, _join(place, key), "is missing")
        for key, value in document.items():
            inner = schema[known[key]] if key in known and key != "*" else schema.get("*")
            if inner is None:
                expected = ", ".join(sorted(known))
                yield Problem(
                    file, _join(place, key), f"is not a known field, expected {expected}"
                )
            else:
                yield from structure_problems(value, inner, file, _join(place, key))


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _value_problem(value: Any, schema: Any) -> str:
    shown = json.dumps(value)[:60]
    if schema is ANY:
        return ""
    if isinstance(schema, frozenset):
        expected = ", ".join(sorted(map(str, schema)))
        return "" if value in schema else f"is {shown}, expected one of {expected}"
    if isinstance(schema, Text):
        fits = isinstance(value, str) and re.fullmatch(schema.pattern, value)
        return "" if fits else f"is {shown}, expected {schema.example}"
    if isinstance(schema, list):
        return "" if isinstance(value, list) else f"is {shown}, expected a list"
    if isinstance(schema, dict):
        return "" if isinstance(value, dict) else f"is {shown}, expected an object"
    kinds = schema if isinstance(schema, tuple) else (schema,)
    if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
        return ""
    return f"is {shown}, expected {' or '.join(_NAMES.get(k, k.__name__) for k in kinds)}"
