"""Join the requests of one model: they wait in a bounded queue and run in batches, in threads."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlzoo.runtime.protocol.datatypes import Array
from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.models.statistics import Statistics

Arrays = dict[str, Array]
#: Runs the model once; raises RefusalError if it cannot.
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How requests wait and are joined.

    Attributes:
        max_batch: the most samples in one run.
        max_delay_s: how long a batch that is not full waits for more requests. With 0, the requests
            that arrive while the model is busy run together.
        queue_size: the most requests that wait.
        num_instances: how many runs go on at the same time.
    """

    max_batch: int = 8
    max_delay_s: float = 0.0
    queue_size: int = 256
    num_instances: int = 1


class Waiting:
    """A request in the queue."""

    __slots__ = ("arrays", "enqueued_ns", "future", "key", "num_samples")

    def __init__(
        self, arrays: Arrays, num_samples: int, key: object, future: asyncio.Future[Arrays]
    ) -> None:
        self.arrays = arrays
        self.num_samples = num_samples
        self.key = key
        self.future = future
        self.enqueued_ns = time.perf_counter_ns()


@dataclass(slots=True)
class Outcome:
    """The result of a run: an answer or an error for each request, and the time of its parts."""

    answers: list[Arrays | Exception]
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


class Batcher:
    """One model's queue; all methods are called on the event loop's thread."""

    def __init__(
        self, run: Run, *, is_batchable: bool, settings: BatchSettings, statistics: Statistics
    ) -> None:
        """Start the threads, on the running event loop.

        Args:
            run: runs the model once.
            is_batchable: whether requests may be joined along the first axis.
            settings: how requests wait and are joined.
            statistics: the counts to update.
        """
        self._run = run
        self._max_batch = settings.max_batch if is_batchable else 1
        self._settings = settings
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Waiting] = deque()
        self._jobs: queue.SimpleQueue[list[Waiting] | None] = queue.SimpleQueue()
        self._num_running = 0
        self._delay_timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        for _ in range(settings.num_instances):
            # Daemon threads, because a run that hangs must not keep the process from ending.
            threading.Thread(target=self._work, name="dlzoo-session", daemon=True).start()

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def is_free(self) -> bool:
        """Whether nothing waits and an instance is free, so that a request would run at once."""
        return not self._queue and self._num_running < self._settings.num_instances

    async def infer(self, arrays: Arrays, num_samples: int, deadline: float) -> Arrays:
        """Answer one request, alone or together with others.

        Args:
            arrays: the inputs, checked.
            num_samples: the size of their batch axis.
            deadline: the event loop's time after which the answer is useless.

        Raises:
            RefusalError: the queue is full, the deadline has passed, or the model cannot run.
        """
        if len(self._queue) >= self._settings.queue_size:
            self._statistics.num_rejected += 1
            raise RefusalError(
                f"the model's queue is full ({len(self._queue)} requests wait). Try again later",
                Reason.BUSY,
                retry_after_s=self._seconds_to_drain(),
            )
        key = tuple((name, array.shape[1:]) for name, array in arrays.items())
        waiting = Waiting(arrays, num_samples, key, self._loop.create_future())
        self._idle.clear()
        self._queue.append(waiting)
        timer = self._loop.call_at(deadline, self._expire, waiting)
        self._dispatch()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            self._statistics.num_cancelled += 1
            self._forget(waiting)
            raise
        finally:
            timer.cancel()

    def run_here(self, arrays: Arrays, num_samples: int) -> Arrays:
        """Run one request on the event loop itself, for models that take almost no time."""
        start_ns = time.perf_counter_ns()
        answer = self._run(arrays)
        self._statistics.queue.add(0)
        self._statistics.add_run(num_samples, 1, 0, time.perf_counter_ns() - start_ns, 0)
        return answer

    async def drain(self) -> None:
        """Wait until nothing waits or runs."""
        await self._idle.wait()

    def close(self) -> None:
        """End the threads, each after its current run; requests that still wait are refused."""
        while self._queue:
            self._fail(
                self._queue.popleft(),
                RefusalError("the model was unloaded", Reason.UNAVAILABLE),
            )
        for _ in range(self._settings.num_instances):
            self._jobs.put(None)

    def _dispatch(self) -> None:
        while self._queue and self._num_running < self._settings.num_instances:
            batch = self._take_batch()
            if not batch:
                return
            self._num_running += 1
            now_ns = time.perf_counter_ns()
            for waiting in batch:
                self._statistics.queue.add(now_ns - waiting.enqueued_ns)
            self._jobs.put(batch)

    def _take_batch(self) -> list[Waiting]:
        """Take the oldest request and those that can join it; none while more may arrive."""
        first = self._queue[0]
        batch, num_samples, is_full = [first], first.num_samples, False
        for waiting in self._queue:
            if waiting is first or waiting.key != first.key:
                continue
            if num_samples + waiting.num_samples > self._max_batch:
                is_full = True
                break
            batch.append(waiting)
            num_samples += waiting.num_samples
        is_full = is_full or num_samples >= self._max_batch
        if self._settings.max_delay_s and not is_full:
            waited_s = (time.perf_counter_ns() - first.enqueued_ns) * 1e-9
            left_s = self._settings.max_delay_s - waited_s
            if left_s > 0:
                if self._delay_timer is None:
                    self._delay_timer = self._loop.call_later(left_s, self._on_delay)
                return []
        if len(batch) == 1:
            self._queue.popleft()
        else:
            taken = set(map(id, batch))
            self._queue = deque(w for w in self._queue if id(w) not in taken)
        return batch

    def _on_delay(self) -> None:
        self._delay_timer = None
        self._dispatch()

    def _work(self) -> None:
        while (batch := self._jobs.get()) is not None:
            outcome = self._run_batch(batch)
            self._loop.call_soon_threadsafe(self._finish, batch, outcome)

    def _run_batch(self, batch: list[Waiting]) -> Outcome:
        start_ns = time.perf_counter_ns()
        try:
            if len(batch) == 1:
                answer = self._run(batch[0].arrays)
                return Outcome([answer], 0, time.perf_counter_ns() - start_ns, 0)
            joined = {
                name: np.concatenate([waiting.arrays[name] for waiting in batch])
                for name in batch[0].arrays
            }
            joined_ns = time.perf_counter_ns()
            answer = self._run(joined)
            done_ns = time.perf_counter_ns()
            answers = _split(answer, [waiting.num_samples for waiting in batch])
            end_ns = time.perf_counter_ns()
            return Outcome(
                list(answers), joined_ns - start_ns, done_ns - joined_ns, end_ns - done_ns
            )
        except Exception as error:
            if len(batch) == 1:
                return Outcome([error], 0, time.perf_counter_ns() - start_ns, 0)
            # One request may have caused it: the others get their answers.
            alone = [self._run_batch([waiting]).answers[0] for waiting in batch]
            return Outcome(alone, 0, time.perf_counter_ns() - start_ns, 0)

    def _finish(self, batch: list[Waiting], outcome: Outcome) -> None:
        self._num_running -= 1
        num_samples = 0
        for waiting, answer in zip(batch, outcome.answers, strict=True):
            if isinstance(answer, Exception):
                self._fail(waiting, answer)
                continue
            num_samples += waiting.num_samples
            if not waiting.future.done():  # cancelled, or too late
                waiting.future.set_result(answer)
        if num_samples:
            self._statistics.add_run(
                num_samples, len(batch), outcome.input_ns, outcome.infer_ns, outcome.output_ns
            )
        self._dispatch()
        self._note_idle()

    def _expire(self, waiting: Waiting) -> None:
        self._fail(
            waiting, RefusalError("the deadline of the request has passed", Reason.DEADLINE)
        )
        self._forget(waiting)

    def _forget(self, waiting: Waiting) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)
            self._note_idle()

    def _note_idle(self) -> None:
        if not self._queue and not self._num_running:
            self._idle.set()

    @staticmethod
    def _fail(waiting: Waiting, error: Exception) -> None:
        if not waiting.future.done():
            waiting.future.set_exception(error)

    def _seconds_to_drain(self) -> int:
        runs = self._statistics.compute_infer
        mean_s = runs.ns * 1e-9 / runs.count if runs.count else 0.0
        num_runs = len(self._queue) / self._settings.num_instances
        return max(1, math.ceil(mean_s * num_runs))


def _split(outputs: Arrays, sizes: list[int]) -> list[Arrays]:
    """Split outputs along the batch axis into those of each request."""
    total = sum(sizes)
    for name, array in outputs.items():
        if len(array) != total:
            raise RefusalError(
                f"output {name!r} has {len(array)} samples, expected {total}", Reason.INTERNAL
            )
    ends = np.cumsum(sizes)
    return [
        {name: array[end - size : end] for name, array in outputs.items()}
        for size, end in zip(sizes, ends, strict=True)
    ]
