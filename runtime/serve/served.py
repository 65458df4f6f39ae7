"""The state that HTTP and gRPC share: the models, the limits, and whether the server is ready."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from dlzoo.runtime.serve.control import Control, ModelCounts, ProcessCounts

if TYPE_CHECKING:
    from dlzoo.runtime.serve.models.repository import IndexEntry


from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.limits import ByteBudget, ServerLimits
from dlzoo.runtime.serve.models.infer_request import (
    InferRequest,
    OutputTensor,
    check_outputs,
    chosen_outputs,
)
from dlzoo.runtime.serve.models.repository import Repository
from dlzoo.runtime.serve.models.served_model import ServedModel
from dlzoo.version import __version__

#: The extensions of the protocol, by the names that Triton gives them.
EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
]


class Served:
    """The state of a server, used by HTTP and gRPC on one event loop."""

    def __init__(
        self,
        repository: Repository,
        limits: ServerLimits,
        *,
        api_key: str | None = None,
        fixed_models: bool = False,
        control: Control | None = None,
    ) -> None:
        self.repository = repository
        self.limits = limits
        self.budget = ByteBudget(limits.pending_bytes)
        self.api_key = api_key
        self.fixed_models = fixed_models
        self.is_ready = False
        self.num_unauthenticated = 0
        self.control = control or OwnControl(self)

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's server metadata."""
        return {"name": "dlzoo", "version": __version__, "extensions": EXTENSIONS}

    def counts(self, worker: str = "") -> ProcessCounts:
        """Return the current counts of this process; ``worker`` is its number, if it has one."""
        return ProcessCounts(
            worker,
            os.getpid(),
            self.is_ready,
            self.num_unauthenticated,
            [
                ModelCounts(model.name, model.version, model.num_waiting, model.statistics)
                for model in self.repository.models()
            ],
        )

    async def infer(
        self, name: str, version: str, request: InferRequest, deadline_s: float | None = None
    ) -> tuple[ServedModel, list[OutputTensor]]:
        """Answer a request.

        Args:
            name: the model's name.
            version: its version; empty for the newest one.
            request: the request.
            deadline_s: seconds from now after which the client no longer waits.

        Raises:
            RefusalError: the request cannot be answered.
        """
        model = self.repository.get(name, version)
        check_outputs(request, model)
        left = [self.limits.timeout_s, deadline_s, request.timeout_s]
        deadline = asyncio.get_running_loop().time() + min(s for s in left if s is not None)
        answer = await model.infer(request.inputs, deadline)
        return model, chosen_outputs(request, model, answer)

    def answers_at_once(self, name: str, version: str, request: InferRequest) -> bool:
        """Whether :meth:`infer` will answer, or refuse, without waiting for anything."""
        return self.repository.get(name, version).runs_inline(
            array for _, array in request.inputs.values()
        )

    def check_may_change_models(self) -> None:
        """Make sure that clients may load and unload models.

        Raises:
            RefusalError: the models are fixed.
        """
        if self.fixed_models:
            raise RefusalError(
                "this server does not let clients load or unload models", Reason.FORBIDDEN
            )


class OwnControl:
    """The control of a server with only one process."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def load(self, name: str) -> None:
        """Load a model, or load it again."""
        await self._served.repository.load(name)

    async def unload(self, name: str) -> None:
        """Stop accepting requests for a model."""
        await self._served.repository.unload(name)

    async def index(self) -> list[IndexEntry]:
        """List every version that is in the folders or loaded."""
        return await asyncio.to_thread(self._served.repository.index)

    async def counts(self) -> list[ProcessCounts]:
        """Return the counts of this process."""
        return [self._served.counts()]
