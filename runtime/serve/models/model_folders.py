"""A model repository on disk: MODEL/VERSION/manifest.json."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def folder_contents(folder: Path) -> str:
    """List the names, sizes and times of a folder's files, which change while it is being copied."""
    seen = []
    for path in sorted(folder.rglob("*")):
        with suppress(OSError):  # a file that is deleted meanwhile counts as a change
            status = path.stat()
            seen.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(seen)


def models_in(repository: Path) -> dict[str, dict[str, Path]]:
    """Find a model repository's models and versions; other files and folders are ignored."""
    try:
        folders = sorted(path for path in repository.iterdir() if path.is_dir())
    except OSError:
        return {}
    found = {}
    for folder in folders:
        versions = {
            str(int(path.name)): path
            for path in folder.iterdir()
            if path.name.isascii()
            and path.name.isdigit()
            and int(path.name) > 0
            and (path / "manifest.json").is_file()
        }
        if versions:
            found[folder.name] = versions
    return found
