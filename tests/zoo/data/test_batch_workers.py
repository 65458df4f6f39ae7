"""Worker processes change nothing, and their end is told in one line."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dlzoo.errors import DataError
from dlzoo.zoo.data.batch_workers import lost_worker
from dlzoo.zoo.data.batches import BatchStream
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.dataset_source import load_dataset
from tests.support.data_files import SMALL_RGB, write_folder


def darken(x: Tensor, y: Tensor, epoch: int, indices: Tensor) -> tuple[Tensor, Tensor]:
    return x / (indices + epoch + 1).view(-1, 1, 1, 1), y


def stream_of(dataset: Dataset, **options: Any) -> BatchStream:
    return BatchStream(
        dataset, batch_size=2, seed=3, shuffle=True, drop_last=False, augment=darken, **options
    )


def content_of(stream: BatchStream, epoch: int, start: int = 0) -> list[Any]:
    return [
        (b.images.numpy().tobytes(), b.targets.tolist(), b.indices.tolist())
        for b in stream.epoch(epoch, start)
    ]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets")


@pytest.fixture
def dataset(pets: Path) -> Dataset:
    return load_dataset(str(pets), split="train", geometry=SMALL_RGB)


def test_any_number_of_workers_gives_the_same_bytes(dataset: Dataset) -> None:
    alone = stream_of(dataset)
    expected = [content_of(alone, epoch) for epoch in range(2)]
    generator = torch.get_rng_state()
    for num_workers in (1, 2):
        stream = stream_of(dataset, num_workers=num_workers)
        assert [content_of(stream, epoch) for epoch in range(2)] == expected
        next(stream.epoch(0))  # an epoch that was left is forgotten
        assert content_of(stream, 1, start=1) == expected[1][1:]
        assert stream.seconds_waiting > 0
        stream.close()
        assert content_of(stream, 1) == expected[1]
        stream.close()
    # Dropout must not depend on the workers either.
    assert torch.equal(torch.get_rng_state(), generator)


def test_workers_go_on_while_the_main_process_handles_an_interrupt(dataset: Dataset) -> None:
    stream = stream_of(dataset, num_workers=1)
    batches = stream.epoch(0)
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    assert len(list(batches)) == 1
    assert content_of(stream, 1) == content_of(stream_of(dataset), 1)
    assert multiprocessing.active_children() == [worker]
    stream.close()


def test_a_corrupt_image_in_a_worker(pets: Path, dataset: Dataset) -> None:
    (pets / "train/cat/a.png").write_bytes(b"no image")
    stream = stream_of(dataset, num_workers=1)
    with pytest.raises(DataError) as caught:
        content_of(stream, 0)
    assert str(caught.value).startswith("train/cat/a.png of pets cannot be read as an image:")
    assert "\n" not in str(caught.value)


SCRIPT = """
import os, sys, time
from dlzoo.errors import DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.batches import BatchStream
from dlzoo.zoo.data.dataset_source import load_dataset

def slow(x, y, epoch, indices):
    time.sleep(0.05)
    return x, y

if __name__ == "__main__":
    folder, start_method = sys.argv[1:]
    geometry = Geometry(color="RGB", resize_size=12, crop_size=(10, 8))
    data = load_dataset(folder, split="train", geometry=geometry)
    stream = BatchStream(
        data, batch_size=2, seed=3, shuffle=True, drop_last=False, augment=slow,
        num_workers=1 if start_method else 2, start_method=start_method or None,
    )
    try:
        for epoch in range(1000 if not start_method else 1):
            for batch in stream.epoch(epoch):
                print(*batch.indices.tolist(), flush=True)
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
"""


def started(tmp_path: Path, pets: Path, start_method: str = "") -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(pets), start_method],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def children_of(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlives the main process"
        time.sleep(0.05)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux_only
def test_a_worker_that_is_killed_is_told_and_nothing_hangs(tmp_path: Path, pets: Path) -> None:
    process = started(tmp_path, pets)
    assert process.stdout is not None
    process.stdout.readline()
    workers = children_of(process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 2
    # torch learns of it by the signal, or by asking.
    how = r"worker \((pid|pid\(s\)) \d+\) (is killed by signal: Killed|exited unexpectedly)"
    assert re.fullmatch(
        "A process that reads images died, often for lack of memory: DataLoader "
        + how
        + r"\. Use fewer workers, or smaller batches\.\n",
        messages,
    )
    assert_gone(workers)


@linux_only
def test_an_interrupt_ends_everything_quietly(tmp_path: Path, pets: Path) -> None:
    process = started(tmp_path, pets)
    assert process.stdout is not None
    process.stdout.readline()
    workers = children_of(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (130, "interrupted\n")
    assert_gone(workers)


def test_spawned_workers(tmp_path: Path, pets: Path, dataset: Dataset) -> None:
    process = started(tmp_path, pets, "spawn")
    output, messages = process.communicate(timeout=120)
    assert (process.returncode, messages) == (0, "")
    alone = [b.indices.tolist() for b in stream_of(dataset).epoch(0)]
    assert [list(map(int, line.split())) for line in output.splitlines()] == alone


def test_other_failures_are_not_taken_for_a_lost_worker() -> None:
    lost = lost_worker(RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"))
    assert str(lost) == (
        "A process that reads images died, often for lack of memory: DataLoader "
        "worker (pid(s) 7, 8) exited unexpectedly. Use fewer workers, or smaller batches."
    )
    assert (
        lost_worker(RuntimeError("Caught RuntimeError in DataLoader worker process 0")) is None
    )
    assert lost_worker(RuntimeError("CUDA error")) is None
