"""What goes wrong while a run is under way: too little memory, a full disk, a worker that dies."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dlzoo.errors import DataError, StorageError
from dlzoo.zoo.train.loop.reports import EpochReport
from dlzoo.zoo.train.recipes.recipe_file import recipe_to_toml
from dlzoo.zoo.train.run.checkpoint import read_tensors
from dlzoo.zoo.train.run.run_folder import RunFolder
from dlzoo.zoo.training import train
from tests.support.training_runs import network_file, small_recipe

#: Trains with little more memory than Python has, first the batch asked for, then what fits;
#: each in a process of its own, as a heap with holes is no measure.
LITTLE_MEMORY = """
import os, re, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import dlzoo.zoo.sources.architecture, dlzoo.zoo.train.run.result_files, dlzoo.zoo.train.loop.trainer
import sklearn.datasets
from dlzoo.errors import TrainingError
from dlzoo.zoo.training import train
from dlzoo.zoo.train.recipes.recipe_file import recipe_from_toml
folder = Path(sys.argv[1])
text = (folder / "recipe.toml").read_text()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def trained(name, changes):
    read, write = os.pipe()
    if not os.fork():
        try:
            train(recipe_from_toml(text, "", changes), folder / name)
            said = "trained"
        except TrainingError as error:
            said = str(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    return os.fdopen(read).read()


said = trained("large", {})
print(said)
size = int(re.search(r"`loop.batch_size` to (\\d+)", said)[1])
parts = int(re.search(r"`loop.micro_batches` to (\\d+)", said)[1])
print(trained("smaller", {"loop.batch_size": size}))
print(trained("parts", {"loop.micro_batches": parts}))
"""


@pytest.mark.slow
def test_the_batch_that_fits_does_fit(tmp_path: Path) -> None:
    recipe = small_recipe(
        f"{network_file(tmp_path)}:wide",
        loop__batch_size=512,
        loop__epochs=1,
        loop__evaluation_batch_size=32,
        data__validation=0.55,
    )
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(recipe))
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path), "200"],
        capture_output=True,
        text=True,
        timeout=300,
        # One arena, and a mapping of its own for each tensor: an address space of many arenas, or
        # a heap with holes between tensors, is no measure of memory.
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": "1000000",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    message, *rest = done.stdout.splitlines()
    assert re.match(
        r"Epoch 1, step 1 \(batch 1 of 2\): memory is too small for 512 images at once\. "
        r"(256|128|64) fit\. ",
        message,
    )
    assert rest == ["trained", "trained"]


@contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more; Python ignores the signal and gets an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    recipe = small_recipe(f"{network_file(tmp_path)}:heavy", loop__epochs=3)
    train(recipe, tmp_path / "whole")
    size = (tmp_path / "whole" / "last.safetensors").stat().st_size
    folder = tmp_path / "run"

    def fill_the_disk(report: Any) -> None:
        if isinstance(report, EpochReport) and report.row["epoch"] == 1:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))

    with no_file_larger_than(2 * size), pytest.raises(StorageError) as caught:
        train(recipe, folder, on_report=fill_the_disk)
    assert str(caught.value) == (
        f"Cannot write last.safetensors in {folder}: the disk is full. Make room. "
        "last.safetensors is as it was before."
    )
    assert caught.value.exit_code == 2
    assert read_tensors(folder / "last.safetensors")[1]["progress"]["epoch"] == 1
    assert not list(folder.glob(".*.part"))
    train(RunFolder.open(folder).recipe, folder, resume=True)
    for name in ("best.safetensors", "last.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_disk_that_is_full_at_once(tmp_path: Path) -> None:
    recipe = small_recipe(f"{network_file(tmp_path)}:tiny")
    with no_file_larger_than(16), pytest.raises(StorageError, match="the disk is full"):
        train(recipe, tmp_path / "run")
    assert train(recipe, tmp_path / "run").test  # once there is room


def test_a_worker_that_dies_during_a_step(tmp_path: Path) -> None:
    recipe = small_recipe(f"{network_file(tmp_path)}:losing_its_worker", data__num_workers=1)
    with pytest.raises(DataError, match="A process that reads images died") as caught:
        train(recipe, tmp_path / "run")
    assert "\n" not in str(caught.value)
