"""The packages that an image of ``dlzoo serve`` needs: all of them, pinned, without PyTorch.

dlzoo's own metadata require PyTorch, which exporting needs and serving does not. The image installs
with ``--no-deps`` from this list, so it contains nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from dlzoo.errors import ExportError, InstallationError
from dlzoo.version import __version__

#: The packages that ``dlzoo serve`` imports beside an ONNX Runtime: dlzoo's dependencies and those of
#: its extra ``serve``, without what only exporting and training need (a test compares this with
#: pyproject.toml).
SERVED = (
    *("numpy", "pillow", "rich", "typer"),
    *(
        "httptools",
        "orjson",
        "prometheus-client",
        "starlette",
        "tritonclient[grpc]",
        "uvicorn",
        "uvloop",
    ),
)
#: The other dependencies of dlzoo.
NOT_SERVED = ("torch", "onnx", "onnxscript", "safetensors", "filelock", "platformdirs")
#: PyTorch and what belongs to it: none of it may be in an image.
FORBIDDEN = ("torch", "torchvision", "onnx", "onnxscript", "onnx-ir", "triton", "timm")
_ONNXRUNTIMES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}


def image_lock(provider: str) -> dict[str, str]:
    """Map each package that the image needs to the version installed here.

    The versions are those of this environment, with which the bundle was proved.

    Args:
        provider: cpu or cuda.

    Raises:
        ExportError: this environment lacks the ONNX Runtime that the provider needs.
        InstallationError: a package of ``dlzoo[serve]`` is missing.
    """
    runtime = _ONNXRUNTIMES[provider]
    try:
        metadata.version(runtime)
    except metadata.PackageNotFoundError:
        raise ExportError(
            f"The image's packages are pinned to those of this environment, which has no {runtime}. "
            "Run this in an environment made by: "
            f'pip install "dlzoo[serve,{"cpu" if provider == "cpu" else "gpu"}]"'
        ) from None
    versions: dict[str, str] = {}
    todo = [_named(text) for text in (*SERVED, _ONNXRUNTIMES[provider])]
    if provider == "cuda":
        todo.append((runtime, {"cuda", "cudnn"}))
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, wanted = todo.pop()
        if (name, frozenset(wanted)) in seen:
            continue
        seen.add((name, frozenset(wanted)))
        try:
            versions[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            raise InstallationError(
                f"The image needs {name}, which is not installed here, so its version is unknown. "
                'Run: pip install "dlzoo[serve]"'
            ) from None
        todo += _requirements(name, wanted)
    forbidden = sorted(set(FORBIDDEN) & set(versions))
    assert not forbidden, forbidden
    return dict(sorted(versions.items()))


def lock_text(versions: dict[str, str]) -> str:
    """Write the packages as a requirements file of pip."""
    lines = [f"# What dlzoo {__version__} needs to serve; install with --no-deps."]
    return "\n".join([*lines, *(f"{name}=={v}" for name, v in versions.items())]) + "\n"


def _named(text: str) -> tuple[str, set[str]]:
    """Split a requirement into its name and its extras."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    requirement = Requirement(text)
    return canonicalize_name(requirement.name), set(requirement.extras)


def _requirements(name: str, extras: set[str]) -> Iterator[tuple[str, set[str]]]:
    """List the names and extras that an installed package requires here, with these extras."""
    from packaging.requirements import Requirement

    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in ("", *sorted(extras))]
        marker = requirement.marker
        if marker is None or any(marker.evaluate(env) for env in environments):
            yield _named(text)
