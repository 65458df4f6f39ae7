"""Downloads from a real server that breaks off, ignores, redirects and lies."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dlzoo.errors import DownloadError, StorageError
from dlzoo.zoo.download import download, weights_folder

if TYPE_CHECKING:
    from tests.zoo.conftest import FileServer

CONTENT = random.Random(0).randbytes(3_000_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NO_WAIT = (0.0, 0.0)


@pytest.fixture(autouse=True)
def content(server: FileServer) -> None:
    server.content = CONTENT


def fetch(url: str, target: Path, sha256: str = SHA256, **options: object) -> Path:
    return download(url, target, sha256=sha256, retry_seconds=NO_WAIT, **options)  # type: ignore[arg-type]


def left_behind(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("num_digits", [8, 64])
def test_whole_file_with_progress(server: FileServer, tmp_path: Path, num_digits: int) -> None:
    reports: list[tuple[int, int]] = []
    target = tmp_path / "cache" / "weights" / "file.pth"
    path = fetch(
        server.url,
        target,
        SHA256[:num_digits],
        progress=lambda done, total: reports.append((done, total)),
    )
    assert path == target
    assert target.read_bytes() == CONTENT
    assert left_behind(target.parent) == {"file.pth"}
    assert reports[0] == (0, len(CONTENT))
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})


def test_second_call_asks_the_server_nothing(server: FileServer, tmp_path: Path) -> None:
    fetch(server.url, tmp_path / "file.pth")
    fetch(server.url, tmp_path / "file.pth")
    assert len(server.ranges) == 1


def test_damaged_file_in_the_cache_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    target = tmp_path / "file.pth"
    target.write_bytes(CONTENT[:-1])
    fetch(server.url, target)
    assert target.read_bytes() == CONTENT


def test_cut_connections_are_resumed_where_they_broke(
    server: FileServer, tmp_path: Path
) -> None:
    # Five cuts, with three tries: each brings something, so the tries start anew.
    server.cuts = [1_000_000, 1, 700_000, 65_536, 1_000_000]
    fetch(server.url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.ranges == [
        None,
        "bytes=1000000-",
        "bytes=1000001-",
        "bytes=1700001-",
        "bytes=1765537-",
        "bytes=2765537-",
    ]
    assert server.num_bytes_sent == len(CONTENT)


def test_server_that_ignores_ranges(server: FileServer, tmp_path: Path) -> None:
    server.honors_ranges = False
    (tmp_path / "file.pth.part").write_bytes(CONTENT[:1000])
    fetch(server.url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_server_that_tells_no_length(server: FileServer, tmp_path: Path) -> None:
    server.sends_length = False
    totals: set[int] = set()
    fetch(server.url, tmp_path / "file.pth", progress=lambda done, total: totals.add(total))
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert totals == {0}


@pytest.mark.parametrize("extra", [b"", b"from a file that was longer"])
def test_part_that_is_whole_or_too_long(
    server: FileServer, tmp_path: Path, extra: bytes
) -> None:
    (tmp_path / "file.pth.part").write_bytes(CONTENT + extra)
    fetch(server.url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.num_bytes_sent == (len(CONTENT) if extra else 0)


def test_part_of_an_older_file_is_given_up(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.pth.part").write_bytes(b"older" * 1000)
    fetch(server.url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000-", None]


def test_redirect_and_passing_trouble(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    (tmp_path / "file.pth.part").write_bytes(CONTENT[:7])
    fetch(server.redirect_url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.ranges == ["bytes=7-"] * 3


def test_wrong_bytes_are_deleted_and_said(server: FileServer, tmp_path: Path) -> None:
    server.content = b"<html>Please log in</html>"
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, tmp_path / "file.pth", "0676ba61")
    got = hashlib.sha256(server.content).hexdigest()[:8]
    assert str(caught.value) == (
        f"file.pth from 127.0.0.1: got 26 bytes of sha256 {got}…, expected 0676ba61…; the "
        "download is deleted. Try again, or pass a file that you trust: `weights=FILE`."
    )
    assert left_behind(tmp_path) == set()
    assert len(server.ranges) == 1


@pytest.mark.parametrize(("status", "num_tries"), [(404, 1), (403, 1), (500, 3)])
def test_error_status(server: FileServer, tmp_path: Path, status: int, num_tries: int) -> None:
    server.statuses = [status] * 9
    with pytest.raises(DownloadError, match=f"the server answered {status} "):
        fetch(server.url, tmp_path / "file.pth")
    assert len(server.ranges) == num_tries
    assert left_behind(tmp_path) == set()


def test_no_network_gives_one_line_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/models/resnet50-0676ba61.pth"
    target = tmp_path / "resnet50-0676ba61.pth"
    with pytest.raises(DownloadError) as caught:
        fetch(url, target)
    assert str(caught.value) == (
        "Cannot download resnet50-0676ba61.pth from 127.0.0.1: [Errno 111] Connection refused. Try "
        f"again when the network is available, or get {url} elsewhere and pass "
        f"`weights=resnet50-0676ba61.pth`, or put it at {target}."
    )


def test_unknown_host(tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"^Cannot download a\.pth from nowhere\.invalid: .*\.$"
    ):
        fetch("https://nowhere.invalid/a.pth", tmp_path / "a.pth")


def test_silent_server(server: FileServer, tmp_path: Path) -> None:
    server.pause_seconds = 1.0
    with pytest.raises(DownloadError, match="timed out"):
        download(
            server.url,
            tmp_path / "file.pth",
            sha256=SHA256,
            retry_seconds=(),
            timeout_seconds=0.2,
        )
    # What came before the silence is kept for the next time.
    assert (tmp_path / "file.pth.part").read_bytes() == CONTENT[: 2**16]


def test_folder_that_cannot_be_made(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        fetch(server.url, tmp_path / "file" / "weights" / "a.pth")
    assert str(caught.value) == (
        f"Cannot write a.pth in {tmp_path / 'file' / 'weights'}: Not a directory. Set DLZOO_HOME "
        "to a folder that you can write to."
    )


# -- other processes -----------------------------------------------------------------------------

PROGRAM = """
import resource, sys
from pathlib import Path
from typing import TYPE_CHECKING
from dlzoo.errors import DlzooError
from dlzoo.zoo.download import download
url, target, sha256, largest_file = sys.argv[1:]
if int(largest_file):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file),) * 2)
try:
    download(url, Path(target), sha256=sha256)
except DlzooError as error:
    print(type(error).__name__, error)
"""


def start_download(url: str, target: Path, largest_file: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, url, str(target), SHA256, str(largest_file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_full_disk(server: FileServer, tmp_path: Path) -> None:
    # To the program, a limit on its files is a disk without room for them.
    process = start_download(server.url, tmp_path / "file.pth", largest_file=2**20)
    output, _ = process.communicate(timeout=60)
    assert output == (
        f"StorageError No room for file.pth in {tmp_path}: File too large. Free some space, or "
        "set DLZOO_HOME to a folder on another disk; what was downloaded is kept.\n"
    )
    assert left_behind(tmp_path) == {"file.pth.part"}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2**20
    fetch(server.url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_killed_download_is_resumed(server: FileServer, tmp_path: Path) -> None:
    server.pause_seconds = 0.05
    part = tmp_path / "file.pth.part"
    process = start_download(server.url, tmp_path / "file.pth")
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 2**18):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "file.pth").exists()
    server.pause_seconds = 0.0
    num_bytes = part.stat().st_size
    fetch(server.url, tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={num_bytes}-"]


def test_two_processes_fetch_once(server: FileServer, tmp_path: Path) -> None:
    server.pause_seconds = 0.01
    processes = [start_download(server.url, tmp_path / "file.pth") for _ in range(2)]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, "")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_threads_fetch_once(server: FileServer, tmp_path: Path) -> None:
    server.pause_seconds = 0.01
    reports: list[tuple[int, int]] = []
    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(
                fetch,
                server.url,
                tmp_path / "file.pth",
                progress=lambda done, total: reports.append((done, total)),
            )
            for _ in range(3)
        ]
    assert {job.result() for job in jobs} == {tmp_path / "file.pth"}
    assert len(server.ranges) == 1
    assert reports


def test_weights_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DLZOO_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "weights"
    monkeypatch.setenv("DLZOO_HOME", "~/models")
    assert weights_folder() == Path.home() / "models" / "weights"
    monkeypatch.setenv("DLZOO_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = weights_folder()
    assert folder.parts[-2:] == ("dlzoo", "weights")
    assert sys.platform != "linux" or folder == tmp_path / "dlzoo" / "weights"
    assert os.environ["DLZOO_HOME"] == ""
