"""Files beside a model that hold its weights: in its own folder, there, and unchanged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlzoo.errors import BundleError


def check_external_files(
    path: Path, names: Sequence[str], checksums: Mapping[str, str]
) -> None:
    """Make sure that weights beside a model may be read, before anything reads them.

    Args:
        path: of the model.
        names: of the files, as the model has them.
        checksums: name -> SHA-1 in hexadecimal digits, where the model gives one.

    Raises:
        BundleError: a file is missing, changed, or lies outside the model's folder.
    """
    # A model in a hub's cache is a link to a folder of blobs, and so are its weights.
    homes = {Path(os.path.realpath(path.parent)), Path(os.path.realpath(path)).parent}
    for name in names:
        file = Path(os.path.realpath(path.parent / name))
        escapes = Path(name).is_absolute() or ".." in Path(name.replace("\\", "/")).parts
        if escapes or not any(file.is_relative_to(home) for home in homes):
            raise BundleError(
                f"{path} keeps weights in {name!r}, outside its own folder; it is not opened. "
                "Get it from a source you trust."
            )
        if not file.is_file():
            raise BundleError(
                f"{path} keeps weights in {name!r}, which is missing. Copy that file beside it."
            )
        expected = checksums.get(name, "").lower()
        if expected:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha1").hexdigest()
            if digest != expected:
                raise BundleError(
                    f"{path} keeps weights in {name!r}, whose SHA-1 is {digest}, expected "
                    f"{expected}: it was changed or cut off. Get both files again."
                )
