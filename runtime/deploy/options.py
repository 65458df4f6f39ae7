"""The options of a deployment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Where a server may run a model; each server's module maps it to that server's settings.
PROVIDERS = ("cpu", "openvino", "cuda", "tensorrt")
GPU_PROVIDERS = ("cuda", "tensorrt")


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """The choices that every target shares.

    Attributes:
        provider: one of ``PROVIDERS``.
        max_batch_size: the largest batch that the server forms.
        ensemble: for Triton, add a step that reads image files.
        native_library: a library of kernels that was loaded here and fits, or None.
        wheel: a wheel of dlzoo for a container's image; None installs the release of this version.
    """

    provider: str = "cpu"
    max_batch_size: int = 32
    ensemble: bool = True
    native_library: Path | None = None
    wheel: Path | None = None
