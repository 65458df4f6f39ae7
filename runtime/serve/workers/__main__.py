"""``python -m dlzoo.runtime.serve.workers FD``: a worker, started by its supervisor."""

from __future__ import annotations

import signal
import socket
import sys

from dlzoo.runtime.serve.process.event_loop import run_until_complete
from dlzoo.runtime.serve.workers.worker import Worker


async def _run(end: socket.socket) -> None:
    await Worker().run(end)


if __name__ == "__main__":
    # A signal to the whole process group is for the supervisor, which ends its workers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    run_until_complete(_run(socket.socket(fileno=int(sys.argv[1]))))
