"""A worker as its supervisor sees it: started, called, ended."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import sys

from dlzoo.runtime.serve.workers.channel import Answer, Channel
from dlzoo.runtime.serve.workers.worker import WorkerSettings


class WorkerProcess:
    """A process, and the channel to it."""

    def __init__(self, name: str, answer: Answer) -> None:
        self.name = name
        self.channel = Channel(answer)
        #: Whether it was asked to end, because its models are not those of the others.
        self.is_leaving = False
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, settings: WorkerSettings) -> None:
        """Start the process; nothing is loaded yet."""
        mine, theirs = socket.socketpair()
        with theirs:
            paths = os.pathsep.join(path for path in sys.path if path)
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dlzoo.runtime.serve.workers"),
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdout=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,  # Ctrl-C in a terminal is for the supervisor
            )
        await self.channel.open(mine)
        await self.channel.call("configure", dataclasses.replace(settings, name=self.name))

    async def wait(self) -> int:
        """Wait for the process to end, and return its exit status."""
        assert self.process is not None
        return await self.process.wait()

    def kill(self) -> None:
        """Kill the process, if it has not ended."""
        self.channel.close()
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
