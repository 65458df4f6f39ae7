"""Worker processes that read batches ahead, with torch's DataLoader."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from dlzoo.errors import DataError
from dlzoo.zoo.data.batch_reader import BatchReader, Result, Share

#: Shares that each worker reads ahead.
_PREFETCH = 2


class BatchWorkers:
    """Processes that live from one epoch to the next; what they read comes in order.

    Args:
        read: reads one share; it is copied to each worker, once.
        num_workers: how many.
        start_method: ``fork``, ``spawn``, ``forkserver``; None: the platform's way.
    """

    def __init__(self, read: BatchReader, num_workers: int, start_method: str | None) -> None:
        self._read = read
        self._num_workers = num_workers
        self._start_method = start_method
        self._shares = _NextShares()
        self._loader: DataLoader[Result] | None = None

    def read(self, shares: Iterable[Share]) -> Iterator[Result]:
        """What is read of each share, in order; one such iteration at a time.

        Raises:
            DataError: a worker died.
        """
        if self._loader is None:
            self._loader = DataLoader(
                _ByShare(self._read),  # type: ignore[arg-type]
                sampler=cast(Any, self._shares),
                batch_size=None,
                num_workers=self._num_workers,
                prefetch_factor=_PREFETCH,
                persistent_workers=True,
                multiprocessing_context=self._start_method,
                worker_init_fn=_ignore_interrupts,
                # Its seed for the workers, which nothing uses, would come from torch's own
                # generator: dropout would depend on the number of workers.
                generator=torch.Generator(),
            )
        self._shares.next = shares
        try:
            yield from self._loader
        except RuntimeError as error:
            failure = lost_worker(error)
            if failure is None:
                raise
            self.close()
            raise failure from None

    def close(self) -> None:
        """End the processes."""
        self._loader = None


def lost_worker(error: RuntimeError) -> DataError | None:
    """What to tell the user where ``error`` is DataLoader's about a worker that died.

    torch raises it in whatever the main process is doing when the signal comes: also in the
    middle of a training step.
    """
    text = str(error)
    if "DataLoader worker" not in text or "Caught " in text:
        return None
    return DataError(
        "A process that reads images died, often for lack of memory: "
        f"{text.splitlines()[0].rstrip('. ')}. Use fewer workers, or smaller batches."
    )


class _NextShares:
    """DataLoader's sampler: the shares of the epoch that comes next."""

    next: Iterable[Share] = ()

    def __iter__(self) -> Iterator[Share]:
        return iter(self.next)


class _ByShare:
    """DataLoader's data set: an item is a whole share."""

    def __init__(self, read: BatchReader) -> None:
        self._read = read

    def __getitem__(self, share: Share) -> Result:
        return self._read(share)


def _ignore_interrupts(worker_id: int) -> None:
    """Ctrl-C reaches every process of a terminal: the main one ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
