"""A disk that is really full: a small file system in memory, in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.training_runs import (
    assert_same_run,
    begin,
    network_file,
    place_of,
    small_recipe,
)

#: Room for the weights and one checkpoint, not for the next one beside it; then room for all.
SCRIPT = """
set -e
mount -t tmpfs -o size="$SIZE" tmpfs disk
cp -r begun disk/run
set +e
"$PYTHON" -m dlzoo train --resume disk/run >out 2>err; echo $? >status
cp -r disk/run stopped
mount -o remount,size=64m disk
"$PYTHON" -m dlzoo train --resume disk/run >out2 2>err2; echo $? >status2
cp -r disk/run resumed
cp -r begun whole
"$PYTHON" -m dlzoo train --resume whole >out3 2>err3
"""


def in_a_namespace(*command: str, folder: Path, **environment: str) -> None:
    """Run something that may mount; what it has mounted goes with it."""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a file system can be mounted; skips where that is not allowed."""
    (tmp_path / "disk").mkdir()
    try:
        in_a_namespace("mount", "-t", "tmpfs", "tmpfs", "disk", folder=tmp_path)
    except (AssertionError, FileNotFoundError) as error:
        pytest.skip(f"no file system can be mounted here: {str(error).splitlines()[0]}")
    return tmp_path


@pytest.mark.slow
def test_the_last_good_checkpoint_stays_and_the_run_goes_on(disk: Path) -> None:
    recipe = small_recipe(f"{network_file(disk)}:heavy", loop__epochs=3)
    begin(disk / "begun", recipe)
    in_a_namespace(
        "sh", "-c", SCRIPT, folder=disk, SIZE="3m", PYTHON=sys.executable, OMP_NUM_THREADS="1"
    )
    said = (disk / "err").read_text()
    assert (disk / "status").read_text() == "2\n", said
    complaints = [line for line in said.splitlines() if line.startswith("dlzoo: ")]
    assert complaints == [
        "dlzoo: Cannot write last.safetensors in disk/run: the disk is full. Make room. "
        "last.safetensors is as it was before."
    ], said
    assert "Traceback" not in said
    assert place_of(disk / "stopped") == (1, 0)
    assert not list((disk / "stopped").glob(".*.part"))
    assert (disk / "status2").read_text() == "0\n", (disk / "err2").read_text()
    assert_same_run(disk / "resumed", disk / "whole")
