"""A folder that appears whole under its final name, or not at all.

It is filled under ``.<name>.partial-<pid>-<random>`` beside the target and then renamed. The
filling process holds a lock on the partial folder, which the system drops when the process dies,
however it dies: the next run tells by that which partial folders are abandoned and removes them.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dlzoo.errors import BundleExistsError, StorageError

try:
    import fcntl
except ImportError:  # Windows: nothing tells a dead process's folder, so none is cleaned up
    fcntl = None  # type: ignore[assignment]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder: its name, the file that it is known by, and a key in that file."""

    noun: str
    marker: str
    key: str

    def is_at(self, path: Path) -> bool:
        """Whether a folder looks like one of this kind: its marker file has the key."""
        try:
            document = json.loads((path / self.marker).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(document, dict) and self.key in document


BUNDLE = FolderKind("bundle", "manifest.json", "schema_version")


@contextmanager
def staged_folder(target: Path, kind: FolderKind, *, force: bool) -> Iterator[Path]:
    """Yield an empty folder to fill; on normal exit it becomes ``target`` in one step.

    On any exception the folder is removed and ``target`` is as it was. Missing parents are made.
    A ``target`` that is a link is replaced where it points to.

    Args:
        target: the final name.
        kind: what is written.
        force: replace a folder of this kind that is there. Anything else that is there and not
            an empty folder is never replaced.

    Raises:
        BundleExistsError: the target is taken.
        StorageError: the place cannot be written, or is full.
    """
    final = Path(os.path.realpath(target))
    _refuse_taken(target, final, kind, force=force)
    new_parents = [parent for parent in final.parents if not parent.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _clean_up_leftovers(final)
        partial, lock = _make_locked_folder(final)
    except OSError as error:
        _remove_empty(new_parents)
        raise _storage_error(target, error) from None
    try:
        try:
            yield partial
            _refuse_taken(target, final, kind, force=force)
            _flush(partial)
            _move_into_place(partial, final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                _refuse_taken(target, final, kind, force=False)
            if error.errno in _FULL or _concerns(error, partial):
                raise _storage_error(target, error) from None
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _remove_empty(new_parents)
        _unlock(lock)


def _remove_empty(folders: list[Path]) -> None:
    """Remove those that hold nothing: the parents that were made for a target that never came."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _concerns(error: OSError, partial: Path) -> bool:
    names = [os.fspath(n) for n in (error.filename, error.filename2) if isinstance(n, str)]
    return error.errno in _UNWRITABLE and any(n.startswith(str(partial)) for n in names)


def _storage_error(target: Path, error: OSError) -> StorageError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        fix = "Free some space, or choose another `output`"
    else:
        fix = "Choose an `output` that you may write to"
    return StorageError(
        f"{target} cannot be written: {reason}. Nothing was left there. {fix}."
    )


def _refuse_taken(target: Path, final: Path, kind: FolderKind, *, force: bool) -> None:
    if not os.path.lexists(final):
        return
    if not final.is_dir():
        raise BundleExistsError(
            f"{target} is a file, expected a new or empty folder. Choose another `output`."
        )
    try:
        is_empty = next(final.iterdir(), None) is None
    except OSError as error:
        raise _storage_error(target, error) from None
    if is_empty:
        return
    if not kind.is_at(final):
        raise BundleExistsError(
            f"{target} holds files and is not a dlzoo {kind.noun}, so it is not replaced. "
            "Choose another `output`."
        )
    if not force:
        raise BundleExistsError(
            f"{target} already holds a {kind.noun}. Give `force=True` to replace it, or choose "
            "another `output`."
        )


def _make_locked_folder(final: Path) -> tuple[Path, int | None]:
    for _ in range(100):
        name = f".{final.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"
        partial = final.parent / name
        partial.mkdir()
        with suppress(FileNotFoundError):
            lock = _try_lock(partial)
            if partial.exists():
                return partial, lock
            _unlock(lock)
        # Between mkdir and the lock another process took the folder for a leftover: again.
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(final))


def _try_lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock, or None where another process holds it."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system has no locks
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _clean_up_leftovers(final: Path) -> None:
    """Remove what dead processes left beside ``final``, and undo a replacement cut in half."""
    if fcntl is None:
        return
    for leftover in final.parent.glob(f".{_escaped(final.name)}.*-*-*"):
        role = leftover.name.removeprefix(f".{final.name}.").split("-")[0]
        if role not in ("partial", "replaced") or leftover.is_symlink():
            continue
        with suppress(FileNotFoundError, NotADirectoryError):
            lock = _try_lock(leftover)
            if lock is None:
                continue
            try:
                if role == "replaced" and not os.path.lexists(final):
                    leftover.rename(final)
                else:
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                _unlock(lock)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _flush(partial: Path) -> None:
    """Bring every file to the disk: a rename may survive a power cut that the data do not."""
    for path in partial.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _move_into_place(partial: Path, final: Path) -> None:
    """Give ``partial`` its final name; a bundle that has it now is moved away and then removed."""
    if not final.is_dir() or next(final.iterdir(), None) is None:
        with suppress(FileNotFoundError):
            final.rmdir()  # an empty folder: POSIX would rename over it, Windows would not
        partial.rename(final)
        return
    old = final.parent / f".{final.name}.replaced-{os.getpid()}-{secrets.token_hex(4)}"
    lock = _try_lock(final)
    try:
        final.rename(old)
        try:
            partial.rename(final)
        except BaseException:
            old.rename(final)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        _unlock(lock)
