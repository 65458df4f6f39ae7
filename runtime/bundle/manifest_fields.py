"""The fields of manifest.json: what each may hold, read from JSON and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from dlzoo.errors import BundleError
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec


@dataclass(frozen=True, kw_only=True)
class AxisRange:
    """The sizes that a symbol stands for, and those at which that was proved.

    ``max`` is None where the graph sets no upper bound.
    """

    symbol: str
    min: int
    max: int | None
    proved: tuple[int, ...]


def wrong_type(field: str, expected: str, got: object) -> BundleError:
    shown = repr(got)
    return BundleError(
        f"manifest.json: {field} should be {expected}, got {shown[:60]}{'…' if len(shown) > 60 else ''}. "
        "Export the bundle again."
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(field, "a text", value)
    return value


def _name(field: str, value: Any) -> str:
    # Names stand in messages, which are one line.
    if not isinstance(value, str) or not value.isprintable():
        raise wrong_type(field, "a text in one line", value)
    return value


def _integer(field: str, value: Any) -> int:
    if not _is_int(value) or value < 0:
        raise wrong_type(field, "a number from 0 up", value)
    return int(value)


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(field, "true or false", value)
    return value


def _limit(field: str, value: Any) -> float:
    # A limit of NaN or Inf would let every comparison pass; json.loads reads both.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise wrong_type(field, "a finite number above 0", value)
    return float(value)


def _object(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(field, "an object", value)
    return value


def _optional_object(field: str, value: Any) -> dict[str, Any] | None:
    return None if value is None else _object(field, value)


def _list(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise wrong_type(field, "a list", value)
    return value


def _objects(field: str, value: Any) -> tuple[dict[str, Any], ...]:
    return tuple(_object(f"{field}[{i}]", item) for i, item in enumerate(_list(field, value)))


def _texts_by_name(field: str, value: Any) -> dict[str, str]:
    return {key: _text(f"{field}.{key}", item) for key, item in _object(field, value).items()}


def _texts(field: str, value: Any) -> tuple[str, ...]:
    return tuple(_text(f"{field}[{i}]", item) for i, item in enumerate(_list(field, value)))


def _labels(field: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    return _texts(field, value)


def _tensor_specs(field: str, value: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for i, item in enumerate(_objects(field, value)):
        where = f"{field}[{i}]"
        dims = _list(f"{where}.dims", item.get("dims"))
        for size in dims:
            if isinstance(size, str):
                _name(f"{where}.dims", size)
            elif not (_is_int(size) and size >= 0):
                raise wrong_type(f"{where}.dims", "sizes or symbols", dims)
        specs.append(
            TensorSpec(
                name=_name(f"{where}.name", item.get("name")),
                dtype=_name(f"{where}.dtype", item.get("dtype")),
                dims=tuple(dims),
            )
        )
    return tuple(specs)


def _axis_ranges(field: str, value: Any) -> dict[str, AxisRange]:
    ranges = {}
    for symbol, item in _object(field, value).items():
        where = f"{field}.{symbol}"
        item = _object(where, item)
        smallest, largest = _integer(f"{where}.min", item.get("min")), item.get("max")
        if largest is not None and _integer(f"{where}.max", largest) < smallest:
            raise wrong_type(f"{where}.max", f"{smallest} or more", largest)
        proved = _list(f"{where}.proved", item.get("proved"))
        for size in proved:
            if not smallest <= _integer(f"{where}.proved", size) <= (largest or size):
                raise wrong_type(f"{where}.proved", "sizes from min to max", proved)
        ranges[symbol] = AxisRange(
            symbol=_name(f"{where}.symbol", item.get("symbol")),
            min=smallest,
            max=largest,
            proved=tuple(proved),
        )
    return ranges


def _integer_ranges(field: str, value: Any) -> dict[str, tuple[int, int]]:
    ranges = {}
    for name, pair in _object(field, value).items():
        numbers = _list(f"{field}.{name}", pair)
        if len(numbers) != 2 or not all(map(_is_int, numbers)) or numbers[0] > numbers[1]:
            raise wrong_type(f"{field}.{name}", "the lowest and the highest value", pair)
        ranges[name] = (numbers[0], numbers[1])
    return ranges


def _weights(field: str, value: Any) -> dict[str, Any]:
    weights = _object(field, value)
    if _text(f"{field}.kind", weights.get("kind")) == "random":
        _integer(f"{field}.seed", weights.get("seed"))
    else:
        _text(f"{field}.sha256", weights.get("sha256"))
    source = weights.get("source")
    if source is not None:
        _text(f"{field}.source", source)
    percent = weights.get("top1_percent", 0)
    if percent is not None and (
        isinstance(percent, bool) or not isinstance(percent, int | float)
    ):
        raise wrong_type(f"{field}.top1_percent", "a number", percent)
    return weights


def _file_hashes(field: str, value: Any) -> dict[str, str]:
    hashes = _texts_by_name(field, value)
    for path, digest in hashes.items():
        parts = PurePosixPath(path).parts
        windows = PureWindowsPath(path)
        if (
            path != "/".join(parts)
            or not parts
            or ".." in parts
            or windows.drive
            or windows.root
            or "\\" in path
            or "\0" in path
        ):
            raise BundleError(
                f"manifest.json: files names {path!r}, which is not a plain path inside the bundle. "
                "Do not use this bundle; get it again from a source you trust."
            )
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise wrong_type(f"{field}.{path}", "a sha256 in 64 hex digits", digest)
    return hashes


FIELD_READERS: dict[str, Callable[[str, Any], Any]] = {
    "schema_version": _integer,
    "name": _name,
    "card": _object,
    "opset": _integer,
    "ir_version": _integer,
    "inputs": _tensor_specs,
    "outputs": _tensor_specs,
    "dynamic_axes": _axis_ranges,
    "preprocessing": _optional_object,
    "preprocessing_included": _flag,
    "head": _name,
    "labels": _labels,
    "lowering": _objects,
    "precision": _name,
    "rho2_limit": _limit,
    "rhomax_limit": _limit,
    "limit_reason": _text,
    "tools": _texts_by_name,
    "weights": _weights,
    "files": _file_hashes,
    "custom_ops": _texts,
    "target": _text,
    "asked_lowerings": _texts_by_name,
    "integer_ranges": _integer_ranges,
    "special_values": _objects,
}
