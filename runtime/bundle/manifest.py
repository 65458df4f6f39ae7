"""manifest.json: the facts that a bundle states about its model, and the hashes of its files."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from dlzoo.errors import BundleError
from dlzoo.runtime.bundle.manifest_fields import FIELD_READERS, AxisRange, wrong_type
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that a bundle declares about its model.

    ``files`` maps each file's path inside the bundle (with ``/``) to its sha256 in hex; ``limit_reason``
    says why the limits are not (3, 6), and is empty where they are. ``custom_ops`` are the operators
    of domain ``dlzoo``, as ``dlzoo::Mish``: they run by a native kernel where its library is loaded,
    else by the function that the model carries. ``target`` and ``asked_lowerings`` are what the
    export was told about spellings, ``integer_ranges`` the lowest and highest value of inputs that
    hold indices. ``special_values`` says of inputs with NaN and infinities whether the graph
    answers as PyTorch does, or which outputs differ and the first node that does it.
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
    tools: dict[str, str]
    weights: dict[str, Any]
    files: dict[str, str]
    custom_ops: tuple[str, ...] = ()
    target: str = "ort-cpu"
    asked_lowerings: dict[str, str] = field(default_factory=dict)
    integer_ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    special_values: tuple[dict[str, Any], ...] = ()

    @property
    def served_name(self) -> str:
        """The name under which a server offers the model: what others do not take becomes ``_``."""
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.name).strip("._-") or "model"

    def describe_weights(self) -> str:
        """One line on where the weights come from."""
        if self.weights["kind"] == "random":
            return f"random, seed {self.weights['seed']}: untrained, its answers mean nothing"
        source = self.weights.get("source") or "a file"
        if self.weights["kind"] == "trained" and self.weights.get("top1_percent") is not None:
            return (
                f"trained: {source}, {self.weights['top1_percent']:.2f} % of the "
                f"test images right, sha256 {self.weights['sha256']}"
            )
        return f"{source}, sha256 {self.weights['sha256']}"

    def to_json(self) -> str:
        """The manifest as stable JSON: sorted keys, a newline at the end, no NaN."""
        document = asdict(self)
        return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest, and check every field's type and every path.

        Raises:
            BundleError: it is not JSON, of another schema version, lacks a field, holds one of
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
            f.name
            for f in fields(cls)
            if f.default is MISSING and f.default_factory is MISSING and f.name not in document
        ]
        if missing:
            raise BundleError(
                f"manifest.json lacks {', '.join(missing)}. Export the bundle again."
            )
        values = {
            name: read(name, document[name])
            for name, read in FIELD_READERS.items()
            if name in document
        }
        try:
            # Python's JSON also takes NaN, Inf and halves of characters: no answer can hold them.
            json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise BundleError(
                f"manifest.json holds what is not JSON: {error}. Export the bundle again."
            ) from None
        return cls(**values)


def _load_object(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"manifest.json is not JSON: {str(error).splitlines()[0]}. Export the bundle again."
        ) from None
    if not isinstance(document, dict):
        raise wrong_type("the document", "an object", document)
    return document
