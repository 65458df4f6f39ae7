"""The bundle on disk: a folder with a model and all that proves and serves it. numpy only.

    vgg16/
      model.onnx           one file under 2 GiB, above that with model.onnx.data beside it
      manifest.json        what the model is, and the sha256 of every file (manifest.py)
      golden/…             inputs and answers (golden_set.py)
      parity.json          what was proved, with which numbers
      MODEL_CARD.md        for people

Everything that reading and writing a bundle needs is named here; the files beside hold its parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dlzoo.errors import BundleError
from dlzoo.runtime.bundle.golden_set import (
    GoldenSet,
    read_golden_set,
)
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.onnx_reader.onnx_header import OnnxHeader, read_onnx_header

_MANIFEST, _PARITY, _MODEL, _GOLDEN = "manifest.json", "parity.json", "model.onnx", "golden"
#: Written after the proof or about it, so not part of what the proof covers.
_WITHOUT_HASH = {_MANIFEST, _PARITY, "report.html", "MODEL_CARD.md"}


class Bundle:
    """A bundle that is on disk; :meth:`open` reads its manifest and checks that.

    >>> bundle = Bundle.open(Path("vgg16"))  # doctest: +SKIP
    >>> bundle.manifest.opset  # doctest: +SKIP
    20
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """Open a bundle's folder.

        Raises:
            BundleError: there is no such folder, or it is not a bundle.
        """
        folder = Path(path)
        try:
            text = (folder / _MANIFEST).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            what = "is not a bundle" if folder.exists() else "does not exist"
            raise BundleError(
                f'{path} {what}: expected a folder with {_MANIFEST}. Make one with "dlzoo export".'
            ) from None
        try:
            manifest = Manifest.from_json(text)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None
        if not (folder / _MODEL).is_file():
            raise BundleError(f"{path} lacks {_MODEL}. Export the bundle again.")
        return cls(folder, manifest)

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / _MODEL

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The name of every class, or None where classes have no names."""
        return self.manifest.labels

    @cached_property
    def header(self) -> OnnxHeader:
        """The opset, inputs and operators, as the ONNX file itself states them."""
        return read_onnx_header(self.model_path)

    def golden_sets(self) -> list[GoldenSet]:
        """All golden sets, in the order of their numbers.

        Raises:
            BundleError: there is none, or one cannot be read.
        """
        folders = [f for f in (self.path / _GOLDEN).glob("test_data_set_*") if f.is_dir()]
        if not folders:
            raise BundleError(
                f"{self.path} holds no golden data, so nothing can be proved. Export it again."
            )
        folders.sort(key=lambda f: (len(f.name), f.name))
        return [read_golden_set(folder) for folder in folders]

    def parity(self) -> dict[str, Any]:
        """The proof that was made with the bundle.

        Raises:
            BundleError: parity.json is missing or damaged.
        """
        try:
            document = json.loads((self.path / _PARITY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            document = None
        if not isinstance(document, dict):
            raise BundleError(
                f"{self.path} has no readable {_PARITY}: it was never proved. Export it again."
            )
        return document

    def check_files(self) -> None:
        """Compare every file with its sha256 in the manifest.

        Raises:
            BundleError: a file is missing, changed, or lies in ``golden`` without being listed.
        """
        listed = self.manifest.files
        golden = {
            file.relative_to(self.path).as_posix()
            for file in (self.path / _GOLDEN).rglob("*")
            if file.is_file()
        }
        must_have = golden | {_MODEL}
        data = self.path / f"{_MODEL}.data"
        if data.exists():
            must_have.add(data.name)
        for name in sorted(must_have - listed.keys()):
            raise BundleError(
                f"{self.path}: {name} is not listed in {_MANIFEST}. Remove it, or export again."
            )
        for name, expected in sorted(listed.items()):
            try:
                found = sha256_of_file(self.path / name)
            except OSError:
                raise BundleError(
                    f"{self.path}: {name} is missing. Copy the whole bundle again."
                ) from None
            if found != expected:
                raise BundleError(
                    f"{self.path}: {name} was changed: its sha256 is {found[:16]}…, "
                    f"{_MANIFEST} says {expected[:16]}…. Copy the whole bundle again."
                )


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(
    folder: Path, manifest: Manifest, *, known_hashes: Mapping[str, str] | None = None
) -> Manifest:
    """Write manifest.json with the hash of every file that lies in ``folder`` now.

    manifest.json, parity.json, MODEL_CARD.md and report.html are not hashed: they say what was
    proved of the others, and are written after them.

    Args:
        folder: the bundle's.
        manifest: what it says, apart from ``files``.
        known_hashes: sha256 by name of files that were hashed while they were written.

    Returns:
        The manifest as written, with ``files`` filled in.
    """
    known = known_hashes or {}
    names = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    files = {
        name: known.get(name) or sha256_of_file(path)
        for name, path in names.items()
        if name not in _WITHOUT_HASH
    }
    written = replace(manifest, files=files)
    (folder / _MANIFEST).write_text(written.to_json(), encoding="utf-8")
    return written


def write_parity(folder: Path, document: dict[str, Any]) -> None:
    """Write parity.json, stable: sorted keys, no NaN, a newline at the end."""
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (folder / _PARITY).write_text(text, encoding="utf-8")
