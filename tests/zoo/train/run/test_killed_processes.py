"""Two processes that are killed and go on end with the same bits as two that never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_runs import (
    assert_same_run,
    begin,
    network_file,
    place_of,
    small_recipe,
)

pytestmark = pytest.mark.slow

CHANGES: dict[str, Any] = {
    "loop__epochs": 6,
    "loop__batch_size": 50,
    "loop__checkpoint_minutes": 1e-6,
    "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.05},
    "weight_average": {"decay": 0.99},
    "augmentation": [{"name": "rotation", "degrees": 15.0}],
}


class Torchrun:
    """torchrun and the two processes it has started, each a ``dlzoo train --resume FOLDER``."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", "-m", "dlzoo", "train", "--resume", str(folder)]
        self._log = (folder.parent / "torchrun.log").open("a+")
        self._process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ranks(self) -> dict[int, int]:
        """The process id of each rank that runs."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self._process.pid:
                    pairs = (place / "environ").read_bytes().split(b"\0")
                    settings = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
                    if b"RANK" in settings:
                        found[int(settings[b"RANK"])] = int(place.name)
        return found

    def wait(self, seconds: float = 240) -> int:
        status = self._process.wait(seconds)
        self._log.seek(0)
        self.said = self._log.read()
        self._log.close()
        return status

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill_when_it_goes_on(folder: Path, victims: tuple[int, ...]) -> tuple[int, int]:
    """Start both, and kill some of them within an epoch and further than the run has come before."""
    before = place_of(folder)
    both = Torchrun(folder)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not both.has_ended:
        place = place_of(folder)
        if place is not None and place[1] > 0 and (before is None or place > before):
            ranks = both.ranks()
            if len(ranks) == 2:
                for rank in victims:
                    os.kill(ranks[rank], signal.SIGKILL)
                break
        time.sleep(0.005)
    else:
        raise AssertionError(f"it did not get on: {both.wait(60)} {both.said[-3000:]}")
    assert both.wait() != 0
    for pid in ranks.values():  # the one that was left does not wait for ever
        assert not is_alive(pid)
    place = place_of(folder)
    assert place is not None
    return place


def test_killed_processes_go_on_to_the_bit(tmp_path: Path) -> None:
    recipe = small_recipe(f"{network_file(tmp_path)}:normalized", **CHANGES)
    for name in ("killed", "whole"):
        begin(tmp_path / name, recipe)
    places = [
        kill_when_it_goes_on(tmp_path / "killed", victims) for victims in ((1,), (0,), (0, 1))
    ]
    assert places == sorted(set(places)), places
    for name in ("killed", "whole"):
        both = Torchrun(tmp_path / name)
        assert both.wait() == 0, both.said[-3000:]
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
