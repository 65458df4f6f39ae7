"""Mini-batches in an order that depends on nothing but the seed and the epoch.

Shapes: N images of a batch, C channels, h and w their height and width, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dlzoo.errors import ArgumentError, DataError, DlzooError
from dlzoo.zoo.data.batch_reader import Augment, BatchReader, Normalize, Share
from dlzoo.zoo.data.batch_workers import BatchWorkers
from dlzoo.zoo.data.dataset import Dataset
from dlzoo.zoo.data.sample_order import shuffled


@dataclass(frozen=True)
class Batch:
    """Images to compute at once: a part of a global batch, which is one optimizer step.

    Attributes:
        images: float32 [N, C, h, w], augmented and normalized.
        targets: int64 [N], or float32 [N, K] where labels are mixed or many.
        indices: int64 [N]; the images' places in the data set.
        number: of the global batch in the epoch, from 0.
        part: of this process's share of the global batch, from 0 to ``micro_batches - 1``.
        num_parts: ``micro_batches``; the optimizer steps after the last.
        num_global: images of the global batch, over all parts and processes. The gradient of its
            mean loss is the sum of all parts' ``N / num_global`` times theirs.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    number: int
    part: int
    num_parts: int
    num_global: int

    @property
    def is_last_part(self) -> bool:
        """Whether the global batch is complete with this one."""
        return self.part == self.num_parts - 1

    def __len__(self) -> int:
        return len(self.indices)


class BatchStream:
    """The batches of any epoch, from a data set.

    The order is drawn from (seed, epoch) and is the same for any number of processes, parts and
    workers. Of a global batch ``g``, process r of W takes ``g[r::W]``, and its part k of m takes
    ``g[r + W k :: W m]``: together they see what a single process sees, and a process that
    accumulates over m parts computes the same batches as m processes. Where images are mixed,
    every process reads and augments the global batch, then takes its share.

    Sets in memory are read faster than a worker could hand the result over: keep ``num_workers``
    at 0 for them.

    Args:
        dataset: the images.
        batch_size: images of a global batch; more than there are is all of them.
        seed: draws the order.
        shuffle: a new order every epoch; else the data set's own, as for evaluation.
        drop_last: leave out the last batch where it is not full.
        augment: changes images in [0, 1] and targets; it can be :class:`CropsOriginals`, too.
        normalize: the last step, on images in [0, 1].
        rank: this process's number, below ``world_size``.
        world_size: how many processes share each global batch.
        micro_batches: parts of this process's share that are computed one after another.
        num_workers: processes that read and augment; 0 does it in this one. The batches are the
            same to the bit. ``dataset``, ``augment`` and ``normalize`` must pickle where
            processes are spawned.
        start_method: how workers are started (``fork``, ``spawn``, …); None: the platform's way.

    Raises:
        ArgumentError: a number is out of range.
        DataError: the data set is empty.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        augment: Augment | None = None,
        normalize: Normalize | None = None,
        rank: int = 0,
        world_size: int = 1,
        micro_batches: int = 1,
        num_workers: int = 0,
        start_method: str | None = None,
    ) -> None:
        _check_at_least(batch_size=(batch_size, 1), seed=(seed, 0), world_size=(world_size, 1))
        _check_at_least(micro_batches=(micro_batches, 1), num_workers=(num_workers, 0))
        if not 0 <= rank < world_size:
            raise ArgumentError(f"rank is {rank}, expected 0 to {world_size - 1}.")
        if not len(dataset):
            raise DataError(f"The {dataset.split} split of {dataset.name} has no image.")
        self.dataset = dataset
        self.batch_size = min(batch_size, len(dataset))
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.micro_batches = micro_batches
        #: Seconds in all that whoever iterates waited for a batch.
        self.seconds_waiting = 0.0
        self._reader = BatchReader(dataset, augment, normalize)
        self._workers = None
        if num_workers:
            self._workers = BatchWorkers(self._reader, num_workers, start_method)

    @property
    def num_batches(self) -> int:
        """Global batches of an epoch, that is optimizer steps."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's batches of an epoch: ``micro_batches`` for each global batch.

        A part is empty where a global batch has fewer images than processes times parts, so that
        every process does the same number of steps.

        Args:
            epoch: from 0.
            start: global batches to skip; nothing of them is read.

        Raises:
            ArgumentError: ``epoch`` or ``start`` is out of range.
            DataError: an image cannot be read, or a worker died.
        """
        _check_at_least(epoch=(epoch, 0), start=(start, 0))
        if start > self.num_batches:
            raise ArgumentError(
                f"start is {start}, expected at most the epoch's {self.num_batches} batches."
            )
        return self._epoch(epoch, start)

    def close(self) -> None:
        """End the workers; the next epoch starts new ones."""
        if self._workers is not None:
            self._workers.close()

    def _epoch(self, epoch: int, start: int) -> Iterator[Batch]:
        order_N = np.arange(len(self.dataset))
        if self.shuffle:
            order_N = shuffled(len(self.dataset), "order", self.seed, epoch)
        ahead = self._shares(order_N, epoch, start)
        results = self._workers.read(ahead) if self._workers else map(self._reader, ahead)
        for share in self._shares(order_N, epoch, start):
            began = time.perf_counter()
            result = next(results)
            self.seconds_waiting += time.perf_counter() - began
            if isinstance(result, DlzooError):
                self.close()
                raise result
            yield from _parts(share, *result, self.micro_batches)

    def _shares(
        self, order_N: npt.NDArray[np.int64], epoch: int, start: int
    ) -> Iterator[Share]:
        for number in range(start, self.num_batches):
            first = number * self.batch_size
            yield Share(
                epoch=epoch,
                number=number,
                indices=order_N[first : first + self.batch_size].copy(),
                rank=self.rank,
                world_size=self.world_size,
            )


def _parts(share: Share, images: Tensor, targets: Tensor, num_parts: int) -> Iterator[Batch]:
    indices = torch.from_numpy(share.indices[share.mine].copy())
    for part in range(num_parts):
        mine = slice(part, None, num_parts)
        yield Batch(
            images=images[mine].contiguous(),
            targets=targets[mine].contiguous(),
            indices=indices[mine].contiguous(),
            number=share.number,
            part=part,
            num_parts=num_parts,
            num_global=len(share.indices),
        )


def _check_at_least(**numbers: tuple[int, int]) -> None:
    for name, (got, least) in numbers.items():
        if got < least:
            raise ArgumentError(f"{name} is {got}, expected {least} or more.")
