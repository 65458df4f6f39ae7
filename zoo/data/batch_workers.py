"""Worker processes that read batches ahead.

A worker shares one socket with the main process and nothing with other workers. A result is a
block of memory without a name, whose descriptor is sent over the socket. The system frees the block
when its last user is gone, so that a process can end at any moment: nothing has to be cleaned up,
and no process waits for one that has ended.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from dlzoo.errors import DataError, DlzooError
from dlzoo.zoo.data.batch_reader import BatchReader, Result, Share

#: Shares that each worker reads ahead. Without shared memory a worker waits until its result is
#: taken; to send it a second share meanwhile could block both sides.
_SHARES_MEMORY = hasattr(os, "memfd_create")
_PREFETCH = 2 if _SHARES_MEMORY else 1
#: Tensors in a block begin at multiples of a cache line, in bytes.
_ALIGNMENT = 64
#: Seconds after which an idle worker looks whether the main process is still there, and seconds
#: that the main process waits for a dead worker's exit status.
_WATCH_S = 5.0

#: The main process's ends of all sockets. A forked worker closes its copies, or the other workers
#: would not notice that the main process is gone.
_main_ends: WeakSet[Connection] = WeakSet()


class BatchWorkers:
    """Processes that live from one epoch to the next; their results come in order.

    Args:
        read: reads one share; it is copied to each worker once.
        num_workers: the number of processes.
        start_method: ``fork``, ``spawn`` or ``forkserver``; None: the platform's default.
    """

    def __init__(self, read: BatchReader, num_workers: int, start_method: str | None) -> None:
        self._read = read
        self._num_workers = num_workers
        self._start_method = start_method
        self._workers: list[_Worker] = []
        self._iteration = 0

    def read(self, shares: Iterable[Share]) -> Iterator[Result]:
        """Read each share; a new call ends the iteration of the one before.

        Yields:
            The result of each share, in order.

        Raises:
            DataError: a worker died.
        """
        self._iteration += 1
        iteration = self._iteration
        ahead = iter(shares)
        reading: deque[_Worker] = deque()
        try:
            self._prepare()
            for worker in self._workers * _PREFETCH:
                if (share := next(ahead, None)) is not None:
                    worker.send(share)
                    reading.append(worker)
            while reading:
                worker = reading.popleft()
                result = worker.receive()
                if (share := next(ahead, None)) is not None:
                    worker.send(share)
                    reading.append(worker)
                yield result
                if iteration != self._iteration:
                    raise RuntimeError(
                        "This iteration has ended: its workers were closed, or read for another."
                    )
        except GeneratorExit:
            raise
        except BaseException:
            # An interrupt can leave half a message in a socket.
            if iteration == self._iteration:
                self.close()
            raise

    def close(self) -> None:
        """End the processes, also in the middle of a share; the next read starts new ones."""
        self._iteration += 1
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.process.join()

    def _prepare(self) -> None:
        """Start the processes, or take what they still have of the last iteration."""
        if self._workers:
            for worker in self._workers:
                worker.forget()
            return
        context = multiprocessing.get_context(self._start_method)
        for _ in range(self._num_workers):
            self._workers.append(_started(context, self._read))


class _Worker:
    """The main process's side of one worker."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self._connection = connection
        #: Shares sent whose results have not been received.
        self._num_reading = 0

    def send(self, share: Share) -> None:
        try:
            self._connection.send(share)
        except OSError:
            raise self._death() from None
        self._num_reading += 1

    def receive(self) -> Result:
        """The result of the oldest share that was sent."""
        ready = wait([self._connection, self.process.sentinel])
        if self._connection not in ready:
            raise self._death()
        try:
            message = self._connection.recv()
            result = _from_message(message, self._connection)
        except (EOFError, OSError):
            raise self._death() from None
        self._num_reading -= 1
        return result

    def forget(self) -> None:
        """Receive what is still to come, for nobody."""
        while self._num_reading:
            self.receive()

    def end(self) -> None:
        self._connection.close()
        self.process.kill()

    def _death(self) -> DataError:
        # Its socket closes a moment before its exit status is known.
        self.process.join(_WATCH_S)
        code = self.process.exitcode
        if code is None:
            how = "does not answer"
        elif code < 0:
            how = f"was ended by signal {-code} ({signal.strsignal(-code)})"
        else:
            how = f"ended with status {code}"
        return DataError(
            "A process that reads images died, often for lack of memory: process "
            f"{self.process.pid} {how}. Use fewer workers or smaller batches."
        )


def _started(context: Any, read: BatchReader) -> _Worker:
    ours, theirs = context.Pipe()
    _main_ends.add(ours)
    process = context.Process(target=_serve, args=(theirs, read), daemon=True)
    with _interrupts_blocked(context.get_start_method()), theirs:
        process.start()
    return _Worker(process, ours)


@contextmanager
def _interrupts_blocked(start_method: str) -> Iterator[None]:
    """Let processes inherit that Ctrl-C is blocked: it reaches them before their first line.

    The main process receives it afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if start_method != "fork":
        # Spawning starts this process, too, and unblocks the signal.
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, read: BatchReader) -> None:
    """Read shares until the main process is gone; it ends workers with a signal."""
    # Ctrl-C reaches every process of a terminal, and the main one may handle it and go on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A handler of the main process, which a fork inherits, is not meant for its workers.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main_process = os.getppid()
    for end in list(_main_ends):
        end.close()
    # Workers share the cores; and after a fork, OpenMP's threads do not exist.
    torch.set_num_threads(1)
    try:
        while True:
            while not connection.poll(_WATCH_S):
                if os.getppid() != main_process:
                    return
            _answer(connection, read, connection.recv())
    except (EOFError, OSError):  # the main process is gone
        return


@dataclass(frozen=True)
class _Block:
    """Tensors in one block of memory; its descriptor follows on the socket."""

    num_bytes: int
    #: Type, shape and first byte of each.
    tensors: tuple[tuple[torch.dtype, torch.Size, int], ...]


@dataclass(frozen=True)
class _Failure:
    """An error that is not the data's: a mistake in an augmentation, memory that is used up."""

    error: Exception


def _answer(connection: Connection, read: BatchReader, share: Share) -> None:
    message, descriptor = _message(read, share)
    try:
        connection.send(message)
        if descriptor is not None:
            reduction.send_handle(connection, descriptor, None)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _message(read: BatchReader, share: Share) -> tuple[Any, int | None]:
    """What to send, and the descriptor of the memory to send after it."""
    try:
        result = read(share)
        if isinstance(result, DlzooError):
            return result, None
        if _SHARES_MEMORY:
            return _block_of(result)
        return tuple(tensor.numpy() for tensor in result), None
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        error.add_note(f"In a process that reads images:\n{trace}")
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # pickling runs code of the error's class
            error = RuntimeError(trace)
        return _Failure(error), None


def _block_of(tensors: tuple[Tensor, ...]) -> tuple[_Block, int]:
    places, num_bytes = [], 0
    for tensor in tensors:
        places.append((tensor.dtype, tensor.shape, num_bytes))
        num_bytes += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
    block = _Block(max(num_bytes, _ALIGNMENT), tuple(places))
    descriptor = os.memfd_create("dlzoo batch")
    try:
        os.ftruncate(descriptor, block.num_bytes)
        for view, tensor in zip(_tensors_in(block, descriptor), tensors, strict=True):
            view.copy_(tensor)
    except BaseException:
        os.close(descriptor)
        raise
    return block, descriptor


def _from_message(message: Any, connection: Connection) -> Result:
    if isinstance(message, _Failure):
        raise message.error
    if isinstance(message, DlzooError):
        return message
    if isinstance(message, _Block):
        descriptor = reduction.recv_handle(connection)
        try:
            images, targets = _tensors_in(message, descriptor)
        finally:
            os.close(descriptor)
        return images, targets
    images, targets = map(torch.from_numpy, message)
    return images, targets


def _tensors_in(block: _Block, descriptor: int) -> list[Tensor]:
    """Map the block; it stays until the last tensor is gone, without a descriptor."""
    content = torch.from_file(
        f"/proc/self/fd/{descriptor}", shared=True, size=block.num_bytes, dtype=torch.uint8
    )
    return [
        content[start : start + prod(shape) * dtype.itemsize].view(dtype).view(shape)
        for dtype, shape, start in block.tensors
    ]
