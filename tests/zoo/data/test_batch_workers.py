"""Worker processes change nothing, and their end is told in one line."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
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
from dlzoo.zoo.data import batch_workers
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


def test_without_shared_memory(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_workers, "_SHARES_MEMORY", False)
    monkeypatch.setattr(batch_workers, "_PREFETCH", 1)
    stream = stream_of(dataset, num_workers=2, start_method="fork")
    expected = [content_of(stream_of(dataset), epoch) for epoch in range(2)]
    assert [content_of(stream, epoch) for epoch in range(2)] == expected
    stream.close()


def test_batches_can_be_kept_without_a_file_descriptor_each(dataset: Dataset) -> None:
    stream = stream_of(dataset, num_workers=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = list(stream.epoch(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        for epoch in range(1, 80):
            kept += stream.epoch(epoch)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        stream.close()
    alone = stream_of(dataset)
    expected = [batch.images for epoch in range(80) for batch in alone.epoch(epoch)]
    assert len(kept) == len(expected) > 128
    assert all(torch.equal(a.images, b) for a, b in zip(kept, expected, strict=True))


class OddError(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly(x: Tensor, y: Tensor, epoch: int, indices: Tensor) -> tuple[Tensor, Tensor]:
    raise OddError(1, 2)


def fail_plainly(x: Tensor, y: Tensor, epoch: int, indices: Tensor) -> tuple[Tensor, Tensor]:
    raise KeyError("shade")


def test_a_mistake_in_an_augmentation_keeps_its_type_and_place(dataset: Dataset) -> None:
    def stream_with(augment: Any) -> BatchStream:
        return BatchStream(
            dataset,
            batch_size=2,
            seed=3,
            shuffle=True,
            drop_last=False,
            augment=augment,
            num_workers=1,
        )

    with pytest.raises(KeyError, match="shade") as caught:
        list(stream_with(fail_plainly).epoch(0))
    assert "in fail_plainly" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match=r"(?s)in fail_oddly.*OddError: 1 and 2"):
        list(stream_with(fail_oddly).epoch(0))
    assert not multiprocessing.active_children()


def test_an_iteration_does_not_go_on_after_the_next_one_began(dataset: Dataset) -> None:
    stream = stream_of(dataset, num_workers=1)
    first = stream.epoch(0)
    next(first)
    second = stream.epoch(1)
    next(second)
    with pytest.raises(RuntimeError, match="This iteration has ended"):
        next(first)
    assert len(list(second)) == 1
    stream.close()


def test_workers_end_with_the_stream_that_was_dropped(dataset: Dataset) -> None:
    """Also where another stream's workers, forked later, live on."""
    dropped = stream_of(dataset, num_workers=2)
    next(dropped.epoch(0))
    workers = multiprocessing.active_children()
    kept = stream_of(dataset, num_workers=1)
    next(kept.epoch(0))
    del dropped
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0
    assert len(multiprocessing.active_children()) == 1
    kept.close()


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


def started(
    tmp_path: Path, pets: Path, start_method: str = "", script_text: str = SCRIPT
) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(script_text)
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
    assert messages == (
        f"A process that reads images died, often for lack of memory: process {workers[0]} was "
        "ended by signal 9 (Killed). Use fewer workers or smaller batches.\n"
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


AGAIN = """
import sys
from dlzoo.errors import DataError
from dlzoo.image_file import Geometry
from dlzoo.zoo.data.batches import BatchStream
from dlzoo.zoo.data.dataset_source import load_dataset

geometry = Geometry(color="RGB", resize_size=12, crop_size=(10, 8))
data = load_dataset(sys.argv[1], split="train", geometry=geometry)
while True:
    stream = BatchStream(
        data, batch_size=2, seed=3, shuffle=True, drop_last=False, num_workers=2,
        start_method=sys.argv[2] or None,
    )
    try:
        while True:
            for epoch in range(1000):
                for batch in stream.epoch(epoch):
                    if epoch == 0 and batch.number == 0:
                        print("reading", flush=True)
    except DataError as error:
        print(error, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@linux_only
@pytest.mark.parametrize("is_killed", [False, True], ids=["interrupted", "killed"])
def test_ends_are_quiet_however_busy_the_machine_is(
    tmp_path: Path, pets: Path, is_killed: bool
) -> None:
    """Workers end 50 times at any moment of their work, beside processes that keep all cores."""
    spin = [
        sys.executable,
        "-c",
        "import time\nt = time.time() + 60\nwhile time.time() < t: pass",
    ]
    busy = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    process = started(tmp_path, pets, script_text=AGAIN)
    assert process.stdout is not None
    times = random.Random(5)
    said = []
    workers: list[int] = []
    deadline = time.monotonic() + 40
    try:
        while len(said) < 50 and time.monotonic() < deadline:
            assert process.stdout.readline() == "reading\n"
            workers = children_of(process.pid)
            time.sleep(times.random() * 0.02)
            if is_killed:
                os.kill(workers[len(said) % 2], signal.SIGKILL)
            else:
                os.killpg(process.pid, signal.SIGINT)
            said.append(process.stdout.readline())
    finally:
        process.kill()
        for other in busy:
            other.kill()
            other.wait()
    _, messages = process.communicate(timeout=60)
    assert messages == ""
    assert len(said) >= 10
    for line in said:
        if is_killed:
            assert line.startswith(
                "A process that reads images died, often for lack of memory: "
            )
            assert line.endswith("signal 9 (Killed). Use fewer workers or smaller batches.\n")
        else:
            assert line == "interrupted\n"
    assert_gone(workers)


@linux_only
def test_an_interrupt_while_workers_start(tmp_path: Path, pets: Path) -> None:
    """Spawned ones import torch for seconds before the first line of theirs."""
    process = started(tmp_path, pets, "spawn")
    deadline = time.monotonic() + 60
    while not (workers := children_of(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (130, "interrupted\n")
    assert_gone(workers)


def test_spawned_workers(tmp_path: Path, pets: Path, dataset: Dataset) -> None:
    process = started(tmp_path, pets, "spawn")
    output, messages = process.communicate(timeout=120)
    assert (process.returncode, messages) == (0, "")
    alone = [b.indices.tolist() for b in stream_of(dataset).epoch(0)]
    assert [list(map(int, line.split())) for line in output.splitlines()] == alone
