"""Downloads of published files: resumable, verified, and complete before they get their name."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from dlzoo.errors import DownloadError, StorageError
from dlzoo.version import __version__

Progress = Callable[[int, int], None]

#: Number of bytes read at a time.
CHUNK = 2**20
#: Seconds without any data after which a server counts as gone.
TIMEOUT_SECONDS = 30.0
#: Seconds before each retry of a broken connection; any new byte starts them again.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)
#: Status codes for which a retry may help: timeout, too many requests, and server errors.
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
#: Error codes of a full disk, an exceeded quota, and a file that is too large.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def weights_folder() -> Path:
    """The folder of published weights: ``$DLZOO_HOME/weights``, or the platform's cache."""
    return _home() / "weights"


def data_folder() -> Path:
    """The folder of published data sets: ``$DLZOO_HOME/data``, or the platform's cache."""
    return _home() / "data"


def _home() -> Path:
    home = os.environ.get("DLZOO_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("dlzoo")


def file_name(url: str) -> str:
    """The last part of a URL's path."""
    return urlsplit(url).path.rsplit("/", 1)[-1]


def sha256_of_file(path: Path) -> str:
    """The file's sha256, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    instead: str | None = None,
    progress: Progress | None = None,
    retry_seconds: tuple[float, ...] = RETRY_SECONDS,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Path:
    """Download ``url`` to ``target`` unless it is there, and return the path.

    An existing file is only verified, and downloaded again if damaged. Received bytes are
    kept in ``target`` + ``.part``: after a broken connection, an interrupt or a crash the next
    call requests only the rest. The whole must have the right hash before it gets its name. Of
    several processes one downloads, and the others wait. Proxies are taken from the environment.

    Args:
        url: http or https.
        target: the final path.
        sha256: the file's digest in hex, or the beginning of it.
        instead: advice for error messages on how else to get the file; by default to pass ``weights``.
        progress: called with (bytes so far, bytes in all); the latter is 0 if unknown.
        retry_seconds: seconds to wait before each retry.
        timeout_seconds: how long the server may be silent.

    Raises:
        DownloadError: no connection, no such file, or a wrong hash.
        StorageError: the folder cannot be written to, or the disk is full.
    """
    assert urlsplit(url).scheme in ("http", "https"), url
    assert sha256 and sha256 == sha256.lower(), sha256
    report = progress or (lambda done, total: None)
    part = target.with_name(target.name + ".part")
    with _storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(part, report):
            if target.exists():
                if sha256_of_file(target).startswith(sha256):
                    return target
                target.unlink()
            # The part may come from a file that has changed since: then download all of it, once.
            for is_last_try in (not _size(part), True):
                try:
                    _fetch(url, part, report, retry_seconds, timeout_seconds)
                except _UnreachableError as failure:
                    raise _cannot_download(url, target, str(failure), instead) from None
                got = sha256_of_file(part)
                if got.startswith(sha256):
                    part.replace(target)
                    return target
                num_bytes = _size(part)
                part.unlink()
                if is_last_try:
                    break
    raise DownloadError(
        f"{file_name(url)} from {urlsplit(url).hostname}: got {num_bytes:,} bytes of sha256 "
        f"{got[: len(sha256)]}…, expected {sha256}…; the download is deleted. Try again, or "
        f"{instead or 'pass a file that you trust: `weights=FILE`'}."
    )


class _UnreachableError(Exception):
    """The reason why a file cannot be downloaded."""


def _fetch(
    url: str,
    part: Path,
    report: Progress,
    retry_seconds: tuple[float, ...],
    timeout_seconds: float,
) -> None:
    """Complete ``part``, over as many connections as necessary."""
    waits = iter(retry_seconds)
    while True:
        size_before = _size(part)
        try:
            if _fetch_rest(url, part, report, timeout_seconds):
                return
            reason = "the connection broke"
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answered {error.code} {error.reason}"
            if error.code not in PASSING_STATUS:
                raise _UnreachableError(reason) from None
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        if _size(part) > size_before:
            waits = iter(retry_seconds)
        wait = next(waits, None)
        if wait is None:
            raise _UnreachableError(reason)
        time.sleep(wait)


def _fetch_rest(url: str, part: Path, report: Progress, timeout_seconds: float) -> bool:
    """Append to ``part`` the bytes of one connection; True if the file is then complete."""
    start = _size(part)
    headers = {"User-Agent": f"dlzoo/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing follows the part: it is complete, or not a part of this file at all.
        error.close()
        if _total(error.headers.get("Content-Range")) == start:
            return True
        part.unlink()
        return False
    with response:
        is_rest = response.status == 206 and _first(response.headers["Content-Range"]) == start
        if response.status == 206 and not is_rest:
            part.unlink()
            return False
        # 200: the server ignores ranges and sends all of it.
        done = start if is_rest else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else 0
        report(done, total)
        with part.open("ab" if is_rest else "wb") as stream:
            while chunk := _read(response):
                stream.write(chunk)
                done += len(chunk)
                report(done, total)
    return done == total or not total


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes; any failure in here is one of the connection, never of the disk."""
    try:
        return response.read1(CHUNK)
    except OSError as error:
        raise ConnectionError(str(error)) from None


def _first(content_range: str | None) -> int | None:
    """The number 7 from ``bytes 7-99/100``."""
    digits = (content_range or "").removeprefix("bytes ").split("-")[0]
    return int(digits) if digits.isdigit() else None


def _total(content_range: str | None) -> int | None:
    """The number 100 from ``bytes */100``."""
    digits = (content_range or "").rsplit("/", 1)[-1]
    return int(digits) if digits.isdigit() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cannot_download(
    url: str, target: Path, reason: str, instead: str | None
) -> DownloadError:
    name = file_name(url)
    return DownloadError(
        f"Cannot download {name} from {urlsplit(url).hostname}: {reason}. Try again when the network "
        f"is available, or get {url} elsewhere and {instead or f'pass `weights={name}`'}, "
        f"or put it at {target}."
    )


@contextmanager
def _one_at_a_time(part: Path, report: Progress) -> Iterator[None]:
    """Hold the file's lock; while another process has it, report that one's progress."""
    lock = FileLock(f"{part}.lock")
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            report(_size(part), 0)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageError(
                f"No room for {target.name} in {target.parent}: {error.strerror}. Free some "
                "space, or set DLZOO_HOME to a folder on another disk; what was downloaded is kept."
            ) from None
        raise StorageError(
            f"Cannot write {target.name} in {target.parent}: {error.strerror or error}. Set "
            "DLZOO_HOME to a folder that you can write to."
        ) from None
