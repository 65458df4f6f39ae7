"""A run that is killed and goes on ends with the same bits as one that never stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dlzoo.zoo.data.normalization_layers import single_thread
from dlzoo.zoo.training import train
from tests.support.training_runs import (
    assert_same_run,
    begin,
    network_file,
    place_of,
    small_recipe,
)

#: Everything that a checkpoint has to hold, at once.
EVERYTHING = {
    "loop.epochs": 4,
    "loop.batch_size": 100,
    "loop.clip_norm": 0.5,
    "loop.micro_batches": 2,
    "loop.checkpoint_minutes": 1e-6,
    "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.05},
    "schedule": {"name": "plateau", "patience": 1, "threshold": 0.5},
    "weight_average": {"decay": 0.99},
    "augmentation": [
        {"name": "rotation", "degrees": 15.0},
        {"name": "mixup", "alpha": 0.4, "probability": 0.5},
    ],
}
#: Trains in the folder, again and again: forks first, so that torch is imported once.
TRAINER = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from dlzoo.zoo.training import train
from dlzoo.zoo.train.run.run_folder import RunFolder
import dlzoo.zoo.train.loop.trainer, dlzoo.zoo.train.run.run_data, dlzoo.zoo.sources.architecture
import sklearn.datasets, dlzoo.zoo.train.run.result_files
folder = Path(sys.argv[1])
for line in sys.stdin:
    child = os.fork()
    if not child:
        train(RunFolder.open(folder).recipe, folder, resume=True)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def stop_inside_an_epoch(child: int, folder: Path) -> None:
    """Hold a process where its last checkpoint is of the middle of an epoch."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        place = place_of(folder)
        if place is not None and place[1] > 0:
            os.kill(child, signal.SIGSTOP)
            place = place_of(folder)
            if place is not None and place[1] > 0:
                return
            os.kill(child, signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError("no checkpoint within an epoch for a minute")


@pytest.mark.parametrize(
    ("num_workers", "num_kills"), [(1, 3), pytest.param(0, 16, marks=pytest.mark.slow)]
)
def test_killed_again_and_again(tmp_path: Path, num_workers: int, num_kills: int) -> None:
    networks = network_file(tmp_path)
    recipe = small_recipe(
        f"{networks}:normalized", **EVERYTHING, data__num_workers=num_workers
    )
    begin(tmp_path / "killed", recipe)
    rest = random.Random(num_workers)
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(tmp_path / "killed")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stops = set()
    with process:
        assert process.stdin is not None and process.stdout is not None
        for number in range(num_kills + 1):
            process.stdin.write("go on\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            if number < num_kills:
                if number == 0:
                    stop_inside_an_epoch(child, tmp_path / "killed")
                else:
                    time.sleep(rest.uniform(0.1, 1.2))
                with suppress(ProcessLookupError):  # it has ended already
                    os.kill(child, signal.SIGKILL)
            code = int(process.stdout.readline())
            if code == 0:
                break
            assert code == -signal.SIGKILL
            stops.add(place_of(tmp_path / "killed"))
        process.stdin.close()
    assert code == 0
    assert any(place is not None and place[1] > 0 for place in stops), stops  # inside an epoch
    with single_thread():  # as the other: sums depend on it
        train(recipe, tmp_path / "whole")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
