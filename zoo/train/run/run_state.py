"""Everything that a run needs to continue as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from dlzoo.errors import CheckpointError, CheckpointMismatchError, describe_exception
from dlzoo.zoo.state_dict import copy_state_dict
from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.run.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    random_state,
    read_tensors,
    restore_random_state,
    write_tensors,
)
from dlzoo.zoo.train.run.run_folder import RECIPE


@dataclass
class Progress:
    """Progress of a run, in plain numbers, so that a checkpoint holds them exactly."""

    epoch: int = 0
    #: Batches of this epoch done so far.
    batch: int = 0
    #: Steps of the optimizer since the start of the run.
    step: int = 0
    #: Sums over this epoch's images so far, in all processes.
    loss_sum: float = 0.0
    num_correct: int = 0
    num_images: int = 0
    norm_sum: float = 0.0
    best_loss: float | None = None
    best_epoch: int | None = None
    num_rows: int = 0

    def start_epoch(self, epoch: int) -> None:
        """Reset the counts for an epoch."""
        self.epoch, self.batch = epoch, 0
        self.loss_sum, self.num_correct, self.num_images, self.norm_sum = 0.0, 0, 0, 0.0


class RunState:
    """The state of a run that changes during training.

    Args:
        fabric: the processes.
        network: as returned by Fabric's ``setup``.
        optimizer: as returned by Fabric's ``setup``.
        progress: progress of the run.
        origin: everything the run is made from, for JSON; checkpoints of other runs are refused.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        origin: Mapping[str, Any],
    ) -> None:
        self.fabric = fabric
        self.network = network
        self.optimizer = optimizer
        self.progress = progress
        self.origin = dict(origin)

    def save(
        self,
        path: Path,
        *,
        extra_tensors: Mapping[str, Mapping[str, Tensor]],
        extra_facts: Mapping[str, Any],
    ) -> None:
        """Write the state; called by every process, and written by the first one.

        Args:
            path: the file.
            extra_tensors: further tensors, by prefix, such as the average of the weights.
            extra_facts: further facts for JSON, such as the state of the schedule.

        Raises:
            StorageError: the file cannot be written; an existing one stays.
        """
        random_tensors, random_rest = random_state()
        streams = _gathered(self.fabric, (random_tensors, random_rest))
        if not self.fabric.is_global_zero:
            return
        optimizer, optimizer_rest = optimizer_tensors(self.optimizer)
        groups: dict[str, Mapping[str, Tensor]] = {
            "network": self.network.state_dict(),
            "optimizer": optimizer,
            **extra_tensors,
            **{f"random.{rank}": tensors for rank, (tensors, _) in enumerate(streams)},
        }
        tensors = {
            f"{prefix}/{name}": tensor
            for prefix, group in groups.items()
            for name, tensor in group.items()
        }
        scaler = self._scaler
        facts = {
            "progress": asdict(self.progress),
            "optimizer": optimizer_rest,
            "random": [rest for _, rest in streams],
            "origin": self.origin,
            "scaler": scaler.state_dict() if scaler is not None else None,
            **extra_facts,
        }
        write_tensors(path, tensors, facts)

    def load(
        self,
        path: Path,
        load_rest: Callable[[Mapping[str, Mapping[str, Tensor]], Mapping[str, Any]], None],
    ) -> None:
        """Restore the state from a checkpoint.

        Args:
            path: the file.
            load_rest: called with all tensors, by prefix, and all facts, to restore the extra ones.

        Raises:
            CheckpointError: the checkpoint is damaged, or of another run.
        """
        flat, facts = read_tensors(path)
        self._require_own(path, facts.get("origin"))
        tensors: dict[str, dict[str, Tensor]] = {}
        for name, tensor in flat.items():
            prefix, _, key = name.partition("/")
            tensors.setdefault(prefix, {})[key] = tensor
        try:
            copy_state_dict(self.network, tensors["network"], path.name)
            load_optimizer(self.optimizer, tensors.get("optimizer", {}), facts["optimizer"])
            for name, value in facts["progress"].items():
                setattr(self.progress, name, value)
            if self._scaler is not None and facts["scaler"]:
                self._scaler.load_state_dict(facts["scaler"])
            rank = self.fabric.global_rank
            if rank < len(facts["random"]):
                restore_random_state(tensors[f"random.{rank}"], facts["random"][rank])
            load_rest(tensors, facts)
        except CheckpointMismatchError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} does not match this run: {describe_exception(error)}. Start the run "
                "again."
            ) from None

    def _require_own(self, path: Path, origin: Any) -> None:
        if origin == self.origin:
            return
        if not isinstance(origin, dict):
            raise CheckpointError(
                f"{path} does not say which run it belongs to. Start the run again."
            )
        got, expected = _flat(origin), _flat(self.origin)
        key = next(
            key for key in sorted({*got, *expected}) if got.get(key) != expected.get(key)
        )
        raise CheckpointError(
            f"{path} belongs to a run with {key} = {got.get(key)!r}, expected {expected.get(key)!r} "
            f"as in this one. Restore that value in {RECIPE}, or start another run."
        )

    @property
    def _scaler(self) -> Any:
        """The scaler of the loss in mixed precision, if there is one."""
        return getattr(self.fabric._precision, "scaler", None)


def origin_of(recipe: Recipe, num_images: int) -> dict[str, Any]:
    """Everything that affects the bits of a run: the recipe without paths and worker processes.

    Args:
        recipe: the resolved recipe.
        num_images: number of training images.
    """
    content = recipe.resolved()
    for table, key in (
        ("data", "root"),
        ("data", "num_workers"),
        ("loop", "checkpoint_minutes"),
    ):
        content[table].pop(key, None)
    return {**content, "num_images": num_images}


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with keys such as ``optimizer.lr``."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _gathered(fabric: Fabric, value: Any) -> list[Any]:
    """The values of all processes, by rank; except in the first one, only its own."""
    if fabric.world_size == 1:
        return [value]
    everyone: list[Any] | None = [None] * fabric.world_size if fabric.is_global_zero else None
    dist.gather_object(value, everyone, dst=0)
    return everyone if everyone is not None else [value]
