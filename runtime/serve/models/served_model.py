"""A bundle that answers requests: proved again, opened, warmed up, and run in batches."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlzoo.errors import ArgumentError, BundleError, DlzooError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.images.classify import check_image_input
from dlzoo.runtime.proof.report import ProofError
from dlzoo.runtime.proof.validate import verify_bundle
from dlzoo.runtime.protocol.datatypes import Array
from dlzoo.runtime.protocol.refusal import Reason, RefusalError, without_paths
from dlzoo.runtime.serve.models.batching import Arrays, Batcher, BatchSettings
from dlzoo.runtime.serve.models.freed_memory import give_back_freed_memory
from dlzoo.runtime.serve.models.signature import Inputs, Signature
from dlzoo.runtime.serve.models.statistics import Statistics
from dlzoo.runtime.session.cores import num_cores
from dlzoo.runtime.session.custom_ops import AUTO, Kernels
from dlzoo.runtime.session.session import Session, open_session

#: A run shorter than this stays on the event loop: it delays others for less time than reading a
#: request does, and a thread would nearly double the processor time (0.22 instead of 0.12 ms).
_INLINE_BELOW_S = 0.0002
#: Threads that spin while they wait for work take time from those that read requests: on two busy
#: cores MobileNetV2 then takes 1.7 times as long, with as much more processor time.
_SESSION_CONFIG = {"session.intra_op.allow_spinning": "0"}
_WARM_UP_RUNS = 5
_WARM_UP_S = 0.25


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """How models are opened and run.

    Attributes:
        provider: the provider to run on.
        allow_fallback: let ONNX Runtime use another provider.
        native_library: a library of kernels for operators of domain ``dlzoo``, ``auto`` or ``off``.
        num_threads: threads of one run; None chooses them automatically.
        num_processes: how many processes of the server share the cores.
        refuse_non_finite: refuse inputs with NaN or infinities.
        batching: how requests wait and are joined.
    """

    provider: str = "cpu"
    allow_fallback: bool = False
    native_library: str | Path = AUTO
    num_threads: int | None = None
    num_processes: int = 1
    refuse_non_finite: bool = False
    batching: BatchSettings = field(default_factory=BatchSettings)


class ServedModel:
    """One version of a model; :meth:`load` returns one that has passed its proof."""

    def __init__(
        self,
        name: str,
        version: str,
        bundle: Bundle,
        session: Session,
        settings: ModelSettings,
        *,
        digest: str,
    ) -> None:
        self.name = name
        self.version = version
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.digest = digest
        self.settings = settings
        self.signature = Signature(bundle.manifest, max_batch=settings.batching.max_batch)
        self.statistics = Statistics()
        self.labels = bundle.manifest.labels
        self._session = session
        self._takes_texts = any(i.datatype == "BYTES" for i in self.signature.inputs.values())
        self._inline_elements = 0
        self._batcher: Batcher | None = None
        self._num_users = 0

    @classmethod
    def load(cls, name: str, version: str, path: Path, settings: ModelSettings) -> ServedModel:
        """Open a bundle, replay its proof, and run it until it is warm; this takes seconds.

        Raises:
            DlzooError: the bundle is damaged, fails its proof, or cannot be run here.
        """
        digest = manifest_digest(path)
        bundle = Bundle.open(path)
        if bundle.manifest.preprocessing is not None and len(bundle.manifest.inputs) == 1:
            check_image_input(bundle.manifest)
        report = verify_bundle(
            bundle,
            providers=(settings.provider,),
            allow_fallback=settings.allow_fallback,
            native_library=settings.native_library,
        )
        if not report:
            raise ProofError(
                f"{path}: the verdict is {report.verdict}. {report.explanation} It is not served.",
                report=report,
            )
        session = _open(bundle, settings, _num_threads(settings))
        model = cls(name, version, bundle, session, settings, digest=digest)
        model._warm_up()
        if model._inline_elements and settings.num_threads is None:
            # Waking other threads would take longer than such a short run.
            model._session = _open(bundle, settings, 1)
            model._warm_up()
        if manifest_digest(path) != digest:
            raise BundleError(f"{path} was replaced while it was being loaded. Load it again.")
        give_back_freed_memory()
        return model

    def start(self) -> None:
        """Begin to accept requests, on the running event loop."""
        self._batcher = Batcher(
            self._run,
            is_batchable=self.signature.batch_symbol is not None,
            settings=self.settings.batching,
            statistics=self.statistics,
        )

    @property
    def custom_ops(self) -> dict[str, Kernels]:
        """How each operator of domain ``dlzoo`` runs."""
        return self._session.custom_ops

    async def infer(self, inputs: Inputs, deadline: float) -> Arrays:
        """Answer one request; return the outputs by name.

        Raises:
            RefusalError: the inputs do not fit, the queue is full, or the deadline has passed.
        """
        assert self._batcher is not None
        start_ns = time.perf_counter_ns()
        succeeded = False
        try:
            num_samples = self.signature.check(inputs)
            if self.settings.refuse_non_finite:
                self.signature.refuse_non_finite(inputs)
            arrays = {name: array for name, (_, array) in inputs.items()}
            if self.runs_inline(arrays.values()):
                answer = self._batcher.run_here(arrays, num_samples)
            else:
                answer = await self._batcher.infer(arrays, num_samples, deadline)
            succeeded = True
            return answer
        finally:
            self.statistics.add_request(time.perf_counter_ns() - start_ns, succeeded=succeeded)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model until the block ends, even if another one replaces it meanwhile."""
        self._num_users += 1
        try:
            yield
        finally:
            self._num_users -= 1

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.num_waiting if self._batcher is not None else 0

    async def retire(self) -> None:
        """Answer the requests in progress, then release the session; no new request may arrive."""
        while self._num_users:
            await asyncio.sleep(0.01)
        if self._batcher is not None:
            await self._batcher.drain()
            self._batcher.close()

    def runs_inline(self, arrays: Iterable[Array]) -> bool:
        """Whether a request of these arrays would run on the event loop, at once."""
        return (
            self._inline_elements > 0
            and self._batcher is not None
            and self._batcher.is_free
            and sum(array.size for array in arrays) <= self._inline_elements
        )

    def _run(self, arrays: Arrays) -> Arrays:
        if self._takes_texts:
            arrays = {name: _with_texts(name, array) for name, array in arrays.items()}
        try:
            return self._session.run(
                {
                    # A view of a request's body may start at any address.
                    name: array if array.flags.aligned else array.copy()
                    for name, array in arrays.items()
                }
            )
        except ArgumentError as error:
            raise RefusalError(self._without_paths(error)) from None
        except DlzooError as error:
            raise RefusalError(self._without_paths(error), Reason.INTERNAL) from None

    def _without_paths(self, error: Exception) -> str:
        return without_paths(
            str(error), str(self.bundle.path), str(self.bundle.path.resolve())
        )

    def _warm_up(self) -> None:
        """Run golden inputs: the first runs allocate memory, the others measure how long one takes."""
        golden = min(self.bundle.golden_sets(), key=lambda golden: golden.batch)
        arrays: Arrays = {name: np.asarray(array) for name, array in golden.inputs.items()}
        seconds: list[float] = []
        while len(seconds) < _WARM_UP_RUNS and sum(seconds) < _WARM_UP_S:
            start = time.perf_counter()
            self._session.run(arrays)
            seconds.append(time.perf_counter() - start)
        if min(seconds) < _INLINE_BELOW_S:
            self._inline_elements = sum(array.size for array in arrays.values())

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """Return the protocol's model metadata."""
        return {
            "name": self.name,
            "versions": versions,
            "platform": "onnxruntime_onnx",
            "inputs": [
                {"name": info.name, "datatype": info.datatype, "shape": info.shape}
                for info in self.signature.inputs.values()
            ],
            "outputs": [
                {"name": info.name, "datatype": info.datatype, "shape": info.shape}
                for info in self.signature.outputs.values()
            ],
        }


def _open(bundle: Bundle, settings: ModelSettings, num_threads: int | None) -> Session:
    return open_session(
        bundle,
        settings.provider,
        allow_fallback=settings.allow_fallback,
        num_threads=num_threads,
        native_library=settings.native_library,
        session_config=_SESSION_CONFIG,
    )


def _num_threads(settings: ModelSettings) -> int | None:
    """Choose the number of threads of one run; None stands for one per core."""
    if settings.num_threads is not None or settings.num_processes == 1:
        return settings.num_threads
    # Processes that each have a thread per core would wait for each other.
    return max(1, num_cores() // settings.num_processes)


def manifest_digest(path: Path) -> str:
    """Hash a bundle's manifest, which holds every file's hash and so identifies the content.

    Raises:
        BundleError: the manifest cannot be read.
    """
    try:
        return hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    except OSError:
        raise BundleError(
            f'{path} is not a bundle: it has no readable manifest.json. Make one with "dlzoo export".'
        ) from None


def _with_texts(name: str, array: Any) -> Any:
    """Decode bytes to the texts that ONNX Runtime takes; they must be UTF-8."""
    if array.dtype != np.object_:
        return array
    try:
        items = [item.decode() if isinstance(item, bytes) else item for item in array.flat]
    except UnicodeDecodeError:
        raise RefusalError(f"input {name!r} holds bytes that are not UTF-8") from None
    texts = np.empty(array.shape, np.object_)
    texts.reshape(-1)[:] = items
    return texts
