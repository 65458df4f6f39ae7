"""The network that a MODEL names, from wherever it comes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.sources.factory import source_from_factory
from dlzoo.zoo.sources.input_spec import require_distinct_names
from dlzoo.zoo.sources.library import LIBRARIES, source_from_library
from dlzoo.zoo.sources.module import source_from_module
from dlzoo.zoo.sources.program import source_from_program
from dlzoo.zoo.sources.source import ModelSource, SourceOptions
from dlzoo.zoo.sources.zoo_model import source_from_zoo


def load_source(model: str | nn.Module, options: SourceOptions | None = None) -> ModelSource:
    """The network that a MODEL names, with its weights.

    Args:
        model: a module; a name of the zoo; ``package.module:factory`` or ``file.py:factory``
            (runs that code); the path of a ``.pt2`` file; ``timm:NAME`` or ``torchvision:NAME``;
            the folder of a training run.
        options: what goes with it.

    Raises:
        ArgumentError: it does not exist, or the options do not go with it.
        UnknownModelError: no model of the zoo has that name.
        WeightsError: the weights are unavailable or do not fit.
    """
    options = options or SourceOptions()
    require_distinct_names(options.inputs)
    source = _load(model, options)
    return source if options.name is None else replace(source, name=options.name)


def _load(model: str | nn.Module, options: SourceOptions) -> ModelSource:
    if isinstance(model, nn.Module):
        return source_from_module(model, options)
    prefix, colon, rest = model.rpartition(":")
    if (Path(model) / "recipe.toml").is_file():
        from dlzoo.zoo.sources.run import source_from_run

        return source_from_run(Path(model), options)
    if model.endswith(".pt2"):
        return source_from_program(Path(model), options)
    if model.endswith((".onnx", ".pt", ".pth", ".safetensors")):
        raise ArgumentError(_not_a_network(model))
    if colon and prefix in LIBRARIES:
        return source_from_library(prefix, rest, options)
    if colon:
        return source_from_factory(prefix, rest, options)
    if model.endswith(".py"):
        raise ArgumentError(
            f"MODEL got {model!r}, expected the name of a function in that file. Write "
            f"{model}:FUNCTION."
        )
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
