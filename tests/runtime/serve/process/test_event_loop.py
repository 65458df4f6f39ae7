"""Ctrl-C while the event loop itself starts: the server stops without a traceback."""

from __future__ import annotations

import subprocess
import sys

#: uvloop makes a pair of sockets in its first steps: Ctrl-C comes right there.
INTERRUPTED = """
import asyncio, os, signal, socket
from dlzoo.runtime.serve.process.event_loop import run_until_complete

make_pair = socket.socketpair
def interrupted_pair(*args, **kwargs):
    socket.socketpair = make_pair
    os.kill(os.getpid(), signal.SIGINT)
    return make_pair(*args, **kwargs)
socket.socketpair = interrupted_pair

async def serve():
    await asyncio.sleep(30)

try:
    run_until_complete(serve())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_while_the_loop_starts() -> None:
    command = [sys.executable, "-W", "error", "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=25, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
