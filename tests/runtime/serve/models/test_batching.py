"""Requests wait and are joined: no answer is lost or crossed, and a bad request fails alone."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.models.batching import Arrays, Batcher, BatchSettings
from dlzoo.runtime.serve.models.statistics import Statistics


class Doubling:
    """A model that doubles its input, records its batches, and waits for a gate if it has one."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.num_at_once = 0
        self.most_at_once = 0

    def __call__(self, arrays: Arrays) -> Arrays:
        self.num_at_once += 1
        self.most_at_once = max(self.most_at_once, self.num_at_once)
        self.gate.wait(10)
        self.num_at_once -= 1
        self.batches.append(len(arrays["x"]))
        if np.any(arrays["x"] < 0):
            raise RefusalError("negative")
        return {"y": arrays["x"] * 2}


def run(
    test: Callable[[Batcher, Doubling, Statistics], Coroutine[Any, Any, None]],
    *,
    is_batchable: bool = True,
    **settings: Any,
) -> tuple[Doubling, Statistics]:
    model, statistics = Doubling(), Statistics()

    async def main() -> None:
        batcher = Batcher(
            model,
            is_batchable=is_batchable,
            settings=BatchSettings(**settings),
            statistics=statistics,
        )
        async with asyncio.timeout(20):
            await test(batcher, model, statistics)
        model.gate.set()
        await batcher.drain()
        batcher.close()

    asyncio.run(main())
    return model, statistics


async def infer(batcher: Batcher, *values: float, timeout_s: float = 10.0) -> list[float]:
    x = np.array(values).reshape(len(values), 1)
    deadline = asyncio.get_running_loop().time() + timeout_s
    answer = await batcher.infer({"x": x}, len(x), deadline)
    return [float(value) for value in answer["y"].reshape(-1)]


async def blocked(batcher: Batcher, model: Doubling) -> "asyncio.Task[list[float]]":
    """A request that keeps the model busy until its gate opens."""
    model.gate.clear()
    task = asyncio.create_task(infer(batcher, 0.0))
    while not model.num_at_once:
        await asyncio.sleep(0.001)
    return task


def test_waiting_requests_run_together_and_get_their_own_answers() -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        first = await blocked(batcher, model)
        values = [[float(i)] * (1 + i % 3) for i in range(1, 40)]
        tasks = [asyncio.create_task(infer(batcher, *v)) for v in values]
        await asyncio.sleep(0.01)
        assert batcher.num_waiting == len(tasks)
        model.gate.set()
        assert await asyncio.gather(*tasks) == [[2 * x for x in v] for v in values]
        assert await first == [0.0]

    model, statistics = run(test, max_batch=8)
    assert model.batches[0] == 1
    assert max(model.batches) <= 8 and sum(model.batches) == 79
    assert len(model.batches) < 15  # of 40 requests
    assert statistics.num_samples == 79 and statistics.num_runs == len(model.batches)
    assert {size: r.compute_infer.count for size, r in statistics.by_batch_size.items()} == {
        size: model.batches.count(size) for size in set(model.batches)
    }


def test_without_a_batch_axis_requests_run_alone() -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        first = await blocked(batcher, model)
        tasks = [asyncio.create_task(infer(batcher, float(i))) for i in range(5)]
        await asyncio.sleep(0.01)
        model.gate.set()
        assert await asyncio.gather(first, *tasks) == [[0.0], *([2.0 * i] for i in range(5))]

    model, _ = run(test, is_batchable=False)
    assert model.batches == [1] * 6


def test_requests_of_different_shapes_are_not_joined() -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        first = await blocked(batcher, model)
        deadline = asyncio.get_running_loop().time() + 10
        wide = [
            asyncio.create_task(batcher.infer({"x": np.full((1, 1 + i % 2), i)}, 1, deadline))
            for i in range(6)
        ]
        await asyncio.sleep(0.01)
        model.gate.set()
        await first
        for i, answer in enumerate(await asyncio.gather(*wide)):
            assert answer["y"].tolist() == [[2 * i] * (1 + i % 2)]

    model, _ = run(test)
    assert model.batches == [1, 3, 3]


def test_one_bad_request_fails_alone() -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        first = await blocked(batcher, model)
        tasks = [asyncio.create_task(infer(batcher, x)) for x in (1.0, -1.0, 3.0)]
        await asyncio.sleep(0.01)
        model.gate.set()
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        assert good == [2.0] and other == [6.0]
        assert isinstance(bad, RefusalError) and str(bad) == "negative"
        await first

    model, _ = run(test)
    assert model.batches == [1, 3, 1, 1, 1]


def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        first = await blocked(batcher, model)
        tasks = [asyncio.create_task(infer(batcher, float(i))) for i in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(RefusalError, match="queue is full") as caught:
            await infer(batcher, 9.0)
        assert caught.value.reason is Reason.BUSY
        assert caught.value.retry_after_s is not None and caught.value.retry_after_s >= 1
        model.gate.set()
        assert await asyncio.gather(first, *tasks) == [[0.0], [0.0], [2.0], [4.0]]

    _, statistics = run(test, queue_size=3)
    assert statistics.num_rejected == 1


def test_a_deadline_is_kept_and_the_request_never_runs() -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        first = await blocked(batcher, model)
        with pytest.raises(RefusalError, match="deadline") as caught:
            await infer(batcher, 5.0, timeout_s=0.02)
        assert caught.value.reason is Reason.DEADLINE
        assert batcher.num_waiting == 0
        model.gate.set()
        await first

    model, _ = run(test)
    assert model.batches == [1]


def test_a_cancelled_request_leaves_the_queue() -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        first = await blocked(batcher, model)
        task = asyncio.create_task(infer(batcher, 5.0))
        await asyncio.sleep(0.01)
        assert batcher.num_waiting == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert batcher.num_waiting == 0
        first.cancel()  # it runs already: its answer is thrown away
        model.gate.set()
        assert await infer(batcher, 7.0) == [14.0]

    model, statistics = run(test)
    assert model.batches == [1, 1]
    assert statistics.num_cancelled == 2


def test_a_batch_that_is_not_full_waits_for_more() -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        start = time.perf_counter()
        early = asyncio.create_task(infer(batcher, 1.0))
        await asyncio.sleep(0.02)
        late = asyncio.create_task(infer(batcher, 2.0))
        assert await asyncio.gather(early, late) == [[2.0], [4.0]]
        assert time.perf_counter() - start >= 0.2
        start = time.perf_counter()
        full = [asyncio.create_task(infer(batcher, float(i))) for i in range(4)]
        await asyncio.gather(*full)
        assert time.perf_counter() - start < 0.2

    model, _ = run(test, max_delay_s=0.2, max_batch=4)
    assert model.batches == [2, 4]


@pytest.mark.parametrize("num_instances", [1, 2])
def test_instances_run_at_the_same_time(num_instances: int) -> None:
    async def test(batcher: Batcher, model: Doubling, statistics: Statistics) -> None:
        model.gate.clear()
        tasks = [asyncio.create_task(infer(batcher, float(i))) for i in range(4)]
        while model.num_at_once < num_instances:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        model.gate.set()
        await asyncio.gather(*tasks)

    model, _ = run(test, num_instances=num_instances, max_batch=1)
    assert model.most_at_once == num_instances
