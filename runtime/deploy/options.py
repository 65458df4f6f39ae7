"""What a user may choose about a deployment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Where a server may run a model; what each server makes of it is in its own module.
PROVIDERS = ("cpu", "openvino", "cuda", "tensorrt")
GPU_PROVIDERS = ("cuda", "tensorrt")


@dataclass(frozen=True, kw_only=True)
class DeployOptions:
    """The choices; ``native_library`` are kernels that were loaded and fit, or None.

    ``wheel`` is a wheel of dlzoo for a container's image; without one the image installs the
    release of this version.
    """

    provider: str = "cpu"
    max_batch_size: int = 32
    ensemble: bool = True
    native_library: Path | None = None
    wheel: Path | None = None
