"""Mini-batches in an order that depends only on the seed and the epoch.

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
    """Images to compute together: a part of a global batch, which is one optimizer step.

    Attributes:
        images: float32 [N, C, h, w], augmented and normalized.
        targets: int64 [N], or float32 [N, K] if labels are mixed or several.
        indices: int64 [N]; the images' positions in the data set.
        number: number of the global batch in the epoch, from 0.
        part: number of the part of this process's share, from 0 to ``micro_batches - 1``.
        num_parts: ``micro_batches``; the optimizer steps after the last part.
        num_global: number of images in the global batch, over all parts and processes. The gradient
            of its mean loss is the sum over all parts of ``N / num_global`` times the part's.
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
        """Whether this part completes the global batch."""
        return self.part == self.num_parts - 1

    def __len__(self) -> int:
        return len(self.indices)


class BatchStream:
    """The batches of any epoch of a data set.

    The order is drawn from (seed, epoch) and does not depend on the number of processes, parts
    and workers. Of a global batch ``g``, process r of W gets ``g[r::W]``, and part k of m gets
    ``g[r + W k :: W m]``: together they get what a single process gets, and a process that
    accumulates over m parts computes the same batches as m processes. If images are mixed, every
    process reads and augments the global batch and then takes its share.

    Data sets in memory are read faster than a worker could pass on the result: use
    ``num_workers=0`` for them.

    Args:
        dataset: the images.
        batch_size: images in a global batch; at most the whole data set.
        seed: draws the order.
        shuffle: draw a new order every epoch; otherwise use the data set's own, as for evaluation.
        drop_last: drop the last batch if it is not full.
        augment: changes images in [0, 1] and targets; may also be a :class:`CropsOriginals`.
        normalize: applied last, to images in [0, 1].
        rank: this process's number, below ``world_size``.
        world_size: number of processes that share each global batch.
        micro_batches: number of parts of this process's share, computed one after another.
        num_workers: number of processes that read and augment; with 0 this process does. The batches
            are identical bit for bit. ``dataset``, ``augment`` and ``normalize`` must be picklable
            where processes are spawned.
        start_method: how workers are started (``fork``, ``spawn``, …); None for the platform's default.

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
        _check_at_least("batch_size", batch_size, 1)
        _check_at_least("seed", seed, 0)
        _check_at_least("world_size", world_size, 1)
        _check_at_least("micro_batches", micro_batches, 1)
        _check_at_least("num_workers", num_workers, 0)
        if not 0 <= rank < world_size:
            raise ArgumentError(f"`rank` got {rank}, expected 0 to {world_size - 1}.")
        if not len(dataset):
            raise DataError(f"The {dataset.split} split of {dataset.name} has no images.")
        self.dataset = dataset
        self.batch_size = min(batch_size, len(dataset))
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.micro_batches = micro_batches
        #: Total seconds for which the reader of the batches waited.
        self.seconds_waiting = 0.0
        self._reader = BatchReader(dataset, augment, normalize)
        self._workers = None
        if num_workers:
            self._workers = BatchWorkers(self._reader, num_workers, start_method)

    @property
    def num_batches(self) -> int:
        """Number of global batches in an epoch, that is of optimizer steps."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's batches of an epoch: ``micro_batches`` of them for each global batch.

        A part is empty if a global batch has fewer images than processes times parts, so that every
        process takes the same number of steps.

        Args:
            epoch: number of the epoch, from 0.
            start: number of global batches to skip without reading them.

        Raises:
            ArgumentError: ``epoch`` or ``start`` is out of range.
            DataError: an image cannot be read, or a worker has died.
        """
        _check_at_least("epoch", epoch, 0)
        _check_at_least("start", start, 0)
        if start > self.num_batches:
            raise ArgumentError(
                f"`start` got {start}, expected at most the epoch's {self.num_batches} batches."
            )
        return self._epoch(epoch, start)

    def close(self) -> None:
        """Stop the workers; the next epoch starts new ones."""
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


def _check_at_least(name: str, got: int, least: int) -> None:
    if got < least:
        raise ArgumentError(f"`{name}` got {got}, expected {least} or more.")
