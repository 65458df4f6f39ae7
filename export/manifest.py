"""manifest.json: what a bundle says about its model, and how to know its files again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from dlzoo.errors import BundleError

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: its name, numpy dtype name, and sizes (a str is a symbol)."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(str(size) for size in self.dims)}]"


@dataclass(frozen=True, kw_only=True)
class AxisRange:
    """The sizes that a symbol stands for, and those at which that was proved.

    ``max`` is None where the graph sets no upper bound.
    """

    symbol: str
    min: int
    max: int | None
    proved: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a bundle declares about its model.

    ``files`` maps each file's path inside the bundle (with ``/``) to its sha256 in hex; ``limit_reason``
    says why the limits are not (3, 6), and is empty where they are. ``custom_ops`` are the operators
    of domain ``dlzoo``, as ``dlzoo::Mish``: they run by a native kernel where its library is loaded,
    else by the function that the model carries.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    card: dict[str, Any]
    opset: int
    ir_version: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dynamic_axes: dict[str, AxisRange]
    preprocessing: dict[str, Any] | None
    preprocessing_included: bool
    head: str
    labels: tuple[str, ...] | None
    lowering: tuple[dict[str, Any], ...]
    precision: str
    rho2_limit: float
    rhomax_limit: float
    limit_reason: str
    divergences: tuple[dict[str, Any], ...]
    tools: dict[str, str]
    weights: dict[str, Any]
    files: dict[str, str]
    custom_ops: tuple[str, ...] = ()

    def describe_weights(self) -> str:
        """One line on where the weights come from."""
        if self.weights["kind"] == "random":
            return f"random, seed {self.weights['seed']}: untrained, its answers mean nothing"
        return f"{self.weights['source']}, sha256 {self.weights['sha256']}"

    def to_json(self) -> str:
        """The manifest as stable JSON: sorted keys, a newline at the end, no NaN."""
        document = asdict(self)
        return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest, and check every field's type and every path.

        Raises:
            BundleError: it is no JSON, of another schema version, lacks a field, holds one of
                another type, or names a file outside the bundle.
        """
        document = _load_object(text)
        version = document.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise BundleError(
                f"manifest.json has schema_version {version!r}, this dlzoo reads {SCHEMA_VERSION}. "
                "Use the version of dlzoo that wrote the bundle, or export it again."
            )
        # What came after the first bundles were written has a default.
        missing = [
            f.name for f in fields(cls) if f.default is MISSING and f.name not in document
        ]
        if missing:
            raise BundleError(
                f"manifest.json lacks {', '.join(missing)}. Export the bundle again."
            )
        return cls(
            **{
                name: read(name, document[name])
                for name, read in _READERS.items()
                if name in document
            }
        )


def _load_object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"manifest.json is not JSON: {str(error).splitlines()[0]}. Export the bundle again."
        ) from None
    if not isinstance(document, dict):
        raise _wrong_type("the document", "an object", document)
    return document


def _wrong_type(field: str, expected: str, got: object) -> BundleError:
    shown = repr(got)
    return BundleError(
        f"manifest.json: {field} should be {expected}, got {shown[:60]}{'…' if len(shown) > 60 else ''}. "
        "Export the bundle again."
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(field, "a text", value)
    return value


def _integer(field: str, value: Any) -> int:
    if not _is_int(value) or value < 0:
        raise _wrong_type(field, "a number from 0 up", value)
    return int(value)


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(field, "true or false", value)
    return value


def _limit(field: str, value: Any) -> float:
    # A limit of NaN or Inf would let every comparison pass; json.loads reads both.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise _wrong_type(field, "a finite number above 0", value)
    return float(value)


def _object(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(field, "an object", value)
    return value


def _optional_object(field: str, value: Any) -> dict[str, Any] | None:
    return None if value is None else _object(field, value)


def _list(field: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong_type(field, "a list", value)
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
            if not (isinstance(size, str) or (_is_int(size) and size >= 0)):
                raise _wrong_type(f"{where}.dims", "sizes or symbols", dims)
        specs.append(
            TensorSpec(
                name=_text(f"{where}.name", item.get("name")),
                dtype=_text(f"{where}.dtype", item.get("dtype")),
                dims=tuple(dims),
            )
        )
    return tuple(specs)


def _axis_ranges(field: str, value: Any) -> dict[str, AxisRange]:
    ranges = {}
    for symbol, item in _object(field, value).items():
        where = f"{field}.{symbol}"
        item = _object(where, item)
        largest = item.get("max")
        ranges[symbol] = AxisRange(
            symbol=_text(f"{where}.symbol", item.get("symbol")),
            min=_integer(f"{where}.min", item.get("min")),
            max=None if largest is None else _integer(f"{where}.max", largest),
            proved=tuple(
                _integer(f"{where}.proved", size)
                for size in _list(f"{where}.proved", item.get("proved"))
            ),
        )
    return ranges


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
            raise _wrong_type(f"{field}.{path}", "a sha256 in 64 hex digits", digest)
    return hashes


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "schema_version": _integer,
    "name": _text,
    "card": _object,
    "opset": _integer,
    "ir_version": _integer,
    "inputs": _tensor_specs,
    "outputs": _tensor_specs,
    "dynamic_axes": _axis_ranges,
    "preprocessing": _optional_object,
    "preprocessing_included": _flag,
    "head": _text,
    "labels": _labels,
    "lowering": _objects,
    "precision": _text,
    "rho2_limit": _limit,
    "rhomax_limit": _limit,
    "limit_reason": _text,
    "divergences": _objects,
    "tools": _texts_by_name,
    "weights": _object,
    "files": _file_hashes,
    "custom_ops": _texts,
}
