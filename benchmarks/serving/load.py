"""The load generator: a separate process that reads a job as JSON and prints its measurements.

Closed loop: as many clients as ``concurrency``, each with one request under way. Open loop: requests
at times fixed beforehand (``rate`` a second), evenly or as a Poisson process; a latency counts from
the time that was fixed, so that a server that falls behind cannot hide it.

The window begins and ends with an answer: answers of one batch come in a burst, and a window between
clock ticks could hold a burst more or less. The server's processor time is read at both ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from clients import Client, Clients
from processes import cpu_seconds, tree
from wire import Array, answered_array, request_bytes

#: An answer may differ from the in-process one by this share of the largest value: other batch sizes
#: round differently (about 1e-6), and answers to other inputs differ by more than 1e-2 (checked).
TOLERANCE = 1e-4
#: Below this share of one core, the client does not limit the measurement.
CLIENT_LIMIT = 0.85


@dataclass(frozen=True)
class Job:
    """One row of the table."""

    protocol: str
    host: str
    port: int
    server_pid: int
    model: str
    input_name: str
    output_name: str
    arrays: str
    seconds: float
    min_requests: int
    concurrency: int = 0
    rate: float = 0.0
    is_poisson: bool = False
    warm_up_s: float = 0.5


@dataclass
class Window:
    """Answers between the first one after the warm-up and the end."""

    is_open: bool = False
    start_s: float = 0.0
    end_s: float = 0.0
    server_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)


class Load:
    """Sends requests, checks the first answers, and measures."""

    def __init__(self, job: Job) -> None:
        self._job = job
        arrays = np.load(job.arrays)
        self._expected: Array = arrays["outputs"]
        host = f"{job.host}:{job.port}"
        self._requests = [
            request_bytes(
                job.protocol, host, job.model, job.input_name, x[None], job.output_name
            )
            for x in arrays["inputs"]
        ]
        self._clients = Clients(job.protocol, job.host, job.port)
        self._window = Window()
        self._wants_open = self._wants_end = False
        self._done = asyncio.Event()
        self._num_answers = 0
        self._num_checked = 0
        self._pids: list[int] = []

    async def run(self) -> dict[str, Any]:
        """Measure.

        Raises:
            RuntimeError: a request failed, or an answer is wrong.
        """
        work = self._closed_loop if self._job.concurrency else self._open_loop
        loop = asyncio.ensure_future(work())
        clock = asyncio.ensure_future(self._watch_the_clock())
        done, _ = await asyncio.wait({loop, clock}, return_when="FIRST_COMPLETED")
        for task in done:
            task.result()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        await self._clients.close()
        return self._result()

    async def _watch_the_clock(self) -> None:
        await asyncio.sleep(self._job.warm_up_s)
        # Every client has an answer: from here on the load is steady.
        while self._num_answers < max(1, self._job.concurrency):
            await asyncio.sleep(0.01)
        self._pids = tree(self._job.server_pid)
        self._wants_open = True
        start, job = time.perf_counter(), self._job
        # At most twice as long if answers are rare.
        while (passed := time.perf_counter() - start) < 2 * job.seconds and (
            passed < job.seconds or len(self._window.latencies_s) < job.min_requests
        ):
            await asyncio.sleep(0.01)
        self._wants_end = True
        await self._done.wait()

    def _note(self, latency_s: float) -> None:
        self._num_answers += 1
        window = self._window
        if window.is_open:
            window.latencies_s.append(latency_s)
            if self._wants_end:
                window.is_open = self._wants_open = False
                self._mark_end()
        elif self._wants_open:
            window.is_open = True
            window.server_cpu_s = -cpu_seconds(self._pids)
            window.client_cpu_s = -time.process_time()
            window.start_s = time.perf_counter()

    def _mark_end(self) -> None:
        window = self._window
        window.end_s = time.perf_counter()
        window.client_cpu_s += time.process_time()
        window.server_cpu_s += cpu_seconds(self._pids)
        self._done.set()

    async def _closed_loop(self) -> None:
        async def call_again_and_again(number: int) -> None:
            client = await self._clients.open()
            kind = number % len(self._requests)
            self._check(kind, *await client.send(self._requests[kind]))
            while True:
                start = time.perf_counter()
                await client.send(self._requests[kind])
                self._note(time.perf_counter() - start)

        await asyncio.gather(*map(call_again_and_again, range(self._job.concurrency)))

    async def _open_loop(self) -> None:
        free: list[Client] = []
        # At least one connection, with its first answer, before the measurement starts.
        first = await self._clients.open()
        self._check(0, *await first.send(self._requests[0]))
        free.append(first)

        async def call(number: int, due: float) -> None:
            client = free.pop() if free else await self._clients.open()
            kind = number % len(self._requests)
            head, body = await client.send(self._requests[kind])
            self._note(time.perf_counter() - due)
            if number < len(self._requests):
                self._check(kind, head, body)
            free.append(client)

        gap = self._gaps()
        due = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due += gap()
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(call(number, due))

    def _gaps(self) -> Callable[[], float]:
        mean_s = 1 / self._job.rate
        generator = np.random.default_rng(0)
        if self._job.is_poisson:
            return lambda: float(generator.exponential(mean_s))
        return lambda: mean_s

    def _check(self, kind: int, head: bytes, body: bytes) -> None:
        got, expected = answered_array(self._job.protocol, head, body)[0], self._expected[kind]
        limit = TOLERANCE * np.abs(expected).max()
        if got.shape != expected.shape or not np.abs(got - expected).max() <= limit:
            raise RuntimeError(f"a wrong answer to input {kind}: {got}, expected {expected}")
        self._num_checked += 1

    def _result(self) -> dict[str, Any]:
        window = self._window
        seconds, count = window.end_s - window.start_s, len(window.latencies_s)
        p50, p99 = np.percentile(window.latencies_s, [50, 99])
        share = window.client_cpu_s / seconds
        return {
            "requests": count,
            "checked": self._num_checked,
            "per_second": count / seconds,
            "p50_ms": 1e3 * p50,
            "p99_ms": 1e3 * p99,
            "cpu_ms": 1e3 * window.server_cpu_s / count,
            "client_cpu_ms": 1e3 * window.client_cpu_s / count,
            "client_share": share,
            "client_is_limit": share > CLIENT_LIMIT,
        }


def main() -> None:
    """Read a job from stdin, print its result on stdout."""
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError:
        from asyncio import new_event_loop

    job = Job(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        print(json.dumps(runner.run(_run(job))))


async def _run(job: Job) -> dict[str, Any]:
    return await Load(job).run()


if __name__ == "__main__":
    main()
