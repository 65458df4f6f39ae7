"""What an export starts from: a network and everything known about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.export.input_spec import InputSpec, require_distinct_names

if TYPE_CHECKING:
    from dlzoo.zoo.registry import Preprocessing

#: Sources by the word before the colon; every other word is a Python module or file.
_LIBRARIES = ("timm", "torchvision")


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A network, and the facts that its bundle will state."""

    name: str
    network: nn.Module
    inputs: tuple[InputSpec, ...]
    #: One for each tensor that the network gives.
    output_names: tuple[str, ...]
    #: Whether its one output is [N, K]: scores that a head can turn into probabilities.
    gives_scores: bool = True
    #: The smallest height and width that the layers accept, where a card says so.
    min_image_size: tuple[int, int] | None = None
    #: The one batch that it was traced with, of a program that was exported before.
    fixed_batch: int | None = None
    #: Facts for the manifest: family, summary, paper, counts.
    card: dict[str, Any]
    weights: dict[str, Any]
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None
    rho2_limit: float = 3.0
    rhomax_limit: float = 6.0
    limit_reason: str = ""

    @property
    def image_input(self) -> InputSpec | None:
        """The input that is an image, where it is the only one of its kind."""
        images = [spec for spec in self.inputs if spec.is_image]
        return images[0] if len(images) == 1 else None


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What the user said about a network, beside its name.

    ``inputs`` are for networks that no card describes, ``default_inputs`` for those of them that
    got none; ``num_classes`` is for networks that are built by name.
    """

    weights: str = "auto"
    seed: int = 0
    inputs: tuple[InputSpec, ...] = ()
    default_inputs: tuple[InputSpec, ...] = ()
    num_classes: int | None = None
    name: str | None = None
    on_bytes: Callable[[int, int], None] | None = None


def load_source(model: str | nn.Module, options: SourceOptions | None = None) -> ModelSource:
    """The network that a MODEL names, with its weights.

    Args:
        model: a module; a name of the zoo; ``package.module:factory`` or ``file.py:factory``
            (runs that code); the path of a ``.pt2`` file; ``timm:NAME`` or ``torchvision:NAME``;
            the folder of a training run.
        options: what goes with it.

    Raises:
        ArgumentError: it cannot be had, or the options do not go with it.
        UnknownModelError: no model of the zoo has that name.
        WeightsError: the weights cannot be had or do not fit.
    """
    options = options or SourceOptions()
    require_distinct_names(options.inputs)
    source = _load(model, options)
    return source if options.name is None else replace(source, name=options.name)


def _load(model: str | nn.Module, options: SourceOptions) -> ModelSource:
    if isinstance(model, nn.Module):
        from dlzoo.export.sources.module import source_from_module

        return source_from_module(model, options)
    prefix, colon, rest = model.rpartition(":")
    if (Path(model) / "recipe.toml").is_file():
        from dlzoo.export.sources.run import source_from_run

        return source_from_run(Path(model), options)
    if model.endswith(".pt2"):
        from dlzoo.export.sources.program import source_from_program

        return source_from_program(Path(model), options)
    if model.endswith((".onnx", ".pt", ".pth", ".safetensors")):
        raise ArgumentError(_not_a_network(model))
    if colon and prefix in _LIBRARIES:
        from dlzoo.export.sources.library import source_from_library

        return source_from_library(prefix, rest, options)
    if colon:
        from dlzoo.export.sources.factory import source_from_factory

        return source_from_factory(prefix, rest, options)
    if model.endswith(".py"):
        raise ArgumentError(
            f"MODEL got {model!r}, expected the name of a function in that file. Write "
            f"{model}:FUNCTION."
        )
    from dlzoo.export.sources.zoo import source_from_zoo

    return source_from_zoo(model, options)


def _not_a_network(path: str) -> str:
    if path.endswith(".onnx"):
        return (
            f"MODEL got {path!r}, which is an ONNX model already. Export starts from PyTorch; "
            f"check it with dlzoo verify {path} --golden DIR."
        )
    return (
        f"MODEL got {path!r}, which holds weights and no network. Write for example dlzoo export "
        f"resnet50 --weights {path}."
    )


def refuse_options(model: str, options: SourceOptions, names: Sequence[str]) -> None:
    """Options that a source has no use for are mistakes, not noise.

    Raises:
        ArgumentError: one of them was given.
    """
    given = {
        "--input": bool(options.inputs),
        "--num-classes": options.num_classes is not None,
        "--weights": options.weights != "auto",
    }
    for name in names:
        if given[name]:
            raise ArgumentError(
                f"{name} does not go with {model}, whose {_WHY[name]}. Leave it out."
            )


_WHY = {
    "--input": "inputs are known",
    "--num-classes": "number of classes is part of its code",
    "--weights": "weights come with it",
}
