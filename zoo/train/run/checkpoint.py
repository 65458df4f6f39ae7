"""The state of a run in one file: safetensors with tensors and JSON facts, never a pickle.

A checkpoint is written under a temporary name, flushed to the disk, and renamed, so its name
always belongs to a complete file.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dlzoo.errors import CheckpointError, StorageError
from dlzoo.zoo.download import FULL

#: Incremented when runs of an older dlzoo can no longer be resumed exactly.
FORMAT = 1


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name; on normal exit the file written there replaces ``path``.

    After an exception ``path`` is unchanged, and the temporary file is removed.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.touch()
        mode = part.stat().st_mode
        yield part
        part.chmod(mode)  # safetensors makes files that other users cannot read
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
        # The folder stores the rename.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(". ")
        problem = (
            "the disk is full. Make room"
            if _system_code(error) in FULL
            else f"{reason}. Fix that"
        )
        kept = f" {path.name} is as it was before." if path.exists() else ""
        raise StorageError(
            f"Cannot write {path.name} in {path.parent}: {problem}.{kept}"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _system_code(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors gives the system's error number only in its text.
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts to one safetensors file, atomically.

    Equal tensors and facts give equal bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    # Copies, because safetensors refuses shared and strided memory.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    # A single key, because safetensors writes several in random order.
    metadata = {"dlzoo": json.dumps({"format": FORMAT, **facts}, sort_keys=True)}
    with replaced_file(path) as part:
        save_file(plain, part, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that :func:`write_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("dlzoo", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {reason}. Start the run again, or use "
            "another of its files."
        ) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        got = facts.get("format") if isinstance(facts, dict) else "no dlzoo facts"
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {FORMAT}, got {got}. It was written by "
            "another program or version: start the run again."
        )
    return tensors, facts


# -- optimizers ---------------------------------------------------------------------------------


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Any]:
    """The state of an optimizer: its tensors by name, and the rest as JSON.

    Tensors are named ``NUMBER.KEY``, with the parameter's number in the order of the groups.
    """
    content = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for number, state in content["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{key}"] = value
            else:
                numbers.setdefault(str(number), {})[key] = value
    return tensors, {"numbers": numbers, "groups": content["param_groups"]}


def load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Restore the state that :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, Any]] = {}
    for number, values in rest["numbers"].items():
        state.setdefault(int(number), {}).update(values)
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    # JSON has no tuples, but betas are one.
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in rest["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


# -- random streams ------------------------------------------------------------------------------


def seed_random_streams(seed: int) -> None:
    """Seed every random stream that a network may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The states of every random stream that a network may draw from."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    # dlzoo does not draw from this one, but other people's networks and callbacks may.
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(state, dict)
    tensors["numpy"] = torch.from_numpy(state["state"]["key"].astype(np.int64))
    version, words, gauss_next = random.getstate()
    return tensors, {
        "numpy": [state["state"]["pos"], state["has_gauss"], state["gauss"]],
        "python": [version, list(words), gauss_next],
    }


def restore_random_state(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
    """Restore the states that :func:`random_state` returned."""
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, *rest["numpy"]))  # noqa: NPY002
    version, words, gauss_next = rest["python"]
    random.setstate((version, tuple(words), gauss_next))
