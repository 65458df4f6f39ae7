"""Everything that a run must know to go on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from dlzoo.errors import CheckpointError
from dlzoo.zoo.state_dict import copy_state_dict
from dlzoo.zoo.train.checkpoint import (
    load_optimizer,
    optimizer_tensors,
    random_state,
    read_tensors,
    restore_random_state,
    write_tensors,
)


@dataclass
class Progress:
    """How far a run is; plain numbers, so that a checkpoint holds them exactly."""

    epoch: int = 0
    #: Batches of this epoch that are done.
    batch: int = 0
    #: Steps of the optimizer since the start.
    step: int = 0
    #: Over this epoch's images so far, all processes.
    loss_sum: float = 0.0
    num_correct: int = 0
    num_images: int = 0
    norm_sum: float = 0.0
    best_loss: float | None = None
    best_epoch: int | None = None
    num_rows: int = 0

    def start_epoch(self, epoch: int) -> None:
        """Count anew."""
        self.epoch, self.batch = epoch, 0
        self.loss_sum, self.num_correct, self.num_images, self.norm_sum = 0.0, 0, 0, 0.0


class RunState:
    """The parts of a run that change.

    Args:
        fabric: the processes.
        network: as Fabric has set it up.
        optimizer: as Fabric has set it up.
        progress: how far it is.
        extra_tensors: further state, by prefix: the weights' average.
        extra_facts: further state that JSON holds: the schedule's.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        self.fabric = fabric
        self.network = network
        self.optimizer = optimizer
        self.progress = progress

    def save(
        self,
        path: Path,
        *,
        extra_tensors: Mapping[str, Mapping[str, Tensor]],
        extra_facts: Mapping[str, Any],
    ) -> None:
        """Write it all; every process calls this, the first one writes.

        Raises:
            StorageError: it cannot be written; what was there stays.
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
            "num_threads": torch.get_num_threads(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            **extra_facts,
        }
        write_tensors(path, tensors, facts)

    def load(self, path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Go back to where a checkpoint was written.

        Returns:
            All tensors by prefix, and all facts.

        Raises:
            CheckpointError: it is damaged, or of another run.
        """
        flat, facts = read_tensors(path)
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
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} does not go with this run: {type(error).__name__}: {error}. Start the "
                "run again."
            ) from None
        return tensors, facts

    @property
    def _scaler(self) -> Any:
        """Mixed precision's loss scale, where there is one."""
        return getattr(self.fabric._precision, "scaler", None)


def _gathered(fabric: Fabric, value: Any) -> list[Any]:
    """The value of each process, by rank; on all but the first only its own."""
    if fabric.world_size == 1:
        return [value]
    everyone: list[Any] | None = [None] * fabric.world_size if fabric.is_global_zero else None
    dist.gather_object(value, everyone, dst=0)
    return everyone if everyone is not None else [value]
