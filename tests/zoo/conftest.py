"""An HTTP server on 127.0.0.1 that can misbehave as servers do, and a cache of one's own."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch


class FileServer(ThreadingHTTPServer):
    """Serves ``content`` under every path but ``/redirect``, which leads to ``/file.pth``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = b""
        #: Bytes after which each connection is cut, first to last; then none is.
        self.cuts: list[int] = []
        #: Statuses answered before any content is.
        self.statuses: list[int] = []
        self.honors_ranges = True
        self.sends_length = True
        #: Seconds between pieces of 64 KiB.
        self.pause_seconds = 0.0
        #: The Range header of every request for content, None where there was none.
        self.ranges: list[str | None] = []
        self.num_bytes_sent = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Print the traceback of a mistake in this server, but not that a client has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.pth"

    @property
    def redirect_url(self) -> str:
        return self.url.replace("file.pth", "redirect")


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/file.pth")
            self.end_headers()
            return
        requested = self.headers["Range"]
        server.ranges.append(requested)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = 0
        size = len(server.content)
        if requested and server.honors_ranges:
            start = int(requested.removeprefix("bytes=").rstrip("-"))
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        if server.sends_length:
            self.send_header("Content-Length", str(size - start))
        self.end_headers()
        stop = start + server.cuts.pop(0) if server.cuts else size
        for first in range(start, min(stop, size), 2**16):
            piece = server.content[first : min(first + 2**16, stop)]
            # Counted first: the reader may be done before write() returns here.
            server.num_bytes_sent += len(piece)
            self.wfile.write(piece)
            time.sleep(server.pause_seconds)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server in a thread of its own, without content yet."""
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small operations on two threads take ten times as long where others want the cores."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DLZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"
