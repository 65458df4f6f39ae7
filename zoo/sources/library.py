"""Models of timm and torchvision by name, where those packages are installed."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dlzoo.errors import ArgumentError, describe_exception
from dlzoo.zoo.data.labels import load_labels
from dlzoo.zoo.initialization.signal import scale_to_unit_variance
from dlzoo.zoo.registry import Preprocessing
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.module import load_weights_file, source_from_module
from dlzoo.zoo.sources.source import ModelSource, SourceOptions
from dlzoo.zoo.state_dict import sha256_of_state_dict

#: The packages that ``timm:NAME`` and ``torchvision:NAME`` name.
LIBRARIES = ("timm", "torchvision")
_PRETRAINED = "imagenet"
_IMAGENET_CLASSES = 1000
_INTERPOLATIONS = ("bilinear", "bicubic")


def source_from_library(library: str, name: str, options: SourceOptions) -> ModelSource:
    """Build a model of ``timm`` or ``torchvision``.

    ``--weights imagenet`` are the library's own, downloaded by it; a file is read as for a model
    of the zoo; random ones (the default) are drawn from the seed and given signal.

    Raises:
        ArgumentError: the package is missing or broken, or has no such model.
        WeightsError: the weights do not fit.
    """
    subject = f"{library}:{name}"
    package = _import(library)
    is_pretrained = options.weights == _PRETRAINED
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = _build(library, package, name, is_pretrained, options.num_classes)
    network.eval()
    shape, preprocessing = _facts(library, package, name, network)
    specs = options.inputs or (InputSpec(name="input", shape=(1, *shape)),)
    is_random = options.weights in ("auto", "random")
    notes: tuple[str, ...] = ()
    if is_random and specs[0].is_image:
        scale_to_unit_variance(network, specs[0].shape[1:], options.seed)
    elif not is_random and not is_pretrained:
        notes = load_weights_file(network, options.weights, subject)
    # By now the weights are the module's own.
    source = source_from_module(
        network,
        replace(
            options, inputs=specs, weights="auto", num_classes=None, name=options.name or name
        ),
        origin=subject,
    )
    kind = "random" if is_random else "published" if is_pretrained else "file"
    file_name = Path(options.weights).name if kind == "file" else None
    weights: dict[str, Any] = {
        **source.weights,
        "kind": kind,
        "seed": options.seed if is_random else None,
        "source": subject if kind == "published" else file_name,
        "sha256": sha256_of_state_dict(network.state_dict()),
    }
    labels = None
    if is_pretrained and options.num_classes in (None, _IMAGENET_CLASSES):
        labels = _labels(network, specs)
    is_as_built = not options.inputs
    return replace(
        source,
        notes=(*notes, *source.notes),
        weights=weights,
        labels=labels,
        preprocessing=preprocessing if is_as_built else None,
    )


def _import(library: str) -> ModuleType:
    try:
        return importlib.import_module(library if library == "timm" else "torchvision.models")
    except ModuleNotFoundError as error:
        raise ArgumentError(
            f"{library}: models need the package {error.name}, which is not installed. Run: "
            f"pip install {library}"
        ) from None
    except Exception as error:  # a torchvision of another torch raises RuntimeError on import
        raise ArgumentError(
            f"{library}: the installed package fails to import: {describe_exception(error)}. Install the one that "
            f"belongs to torch {torch.__version__}."
        ) from None


def _build(
    library: str,
    package: ModuleType,
    name: str,
    is_pretrained: bool,
    num_classes: int | None,
) -> nn.Module:
    classes = {} if num_classes is None else {"num_classes": num_classes}
    known = package.list_models() if library == "torchvision" else package.list_models(name)
    if name.split(".")[0] not in known and name not in known:
        near = ", ".join(_near(name, package.list_models()))
        raise ArgumentError(
            f"{library} has no model named {name!r}. "
            + (f"Did you mean {near}?" if near else "Check the name.")
        )
    network: nn.Module
    try:
        if library == "timm":
            network = package.create_model(name, pretrained=is_pretrained, **classes)
        else:
            arguments = {"weights": "DEFAULT" if is_pretrained else None, **classes}
            if not is_pretrained and name in ("googlenet", "inception_v3"):
                arguments["init_weights"] = False  # theirs takes half a minute
            network = package.get_model(name, **arguments)
    except Exception as error:  # downloads and builders of others raise what they like
        raise ArgumentError(
            f"{library}:{name} cannot be built: {describe_exception(error)}. Check its "
            "weights, the network connection, and the number of classes."
        ) from None
    return network


def _near(name: str, names: list[str]) -> list[str]:
    return difflib.get_close_matches(name, names, n=3)


def _facts(
    library: str, package: ModuleType, name: str, network: nn.Module
) -> tuple[tuple[int, ...], Preprocessing | None]:
    """(channels, height, width) of a sample, and how an image becomes one."""
    if library == "timm":
        facts: dict[str, Any] = dict(network.pretrained_cfg)  # type: ignore[arg-type]
        channels, height, width = facts.get("input_size", (3, 224, 224))
        interpolation = facts.get("interpolation", "bicubic")
        if (
            interpolation not in _INTERPOLATIONS
            or facts.get("crop_mode", "center") != "center"
        ):
            return (channels, height, width), None
        return (channels, height, width), Preprocessing(
            resize_size=int(height / facts.get("crop_pct", 0.875)),
            crop_size=(height, width),
            interpolation=interpolation,
            mean=tuple(facts["mean"]),
            std=tuple(facts["std"]),
        )
    transform = _published_for(network, package.get_model_weights(name)).transforms()
    (size,), (resize_size,) = transform.crop_size, transform.resize_size
    interpolation = transform.interpolation.value
    if interpolation not in _INTERPOLATIONS:
        return (3, size, size), None
    return (3, size, size), Preprocessing(
        resize_size=resize_size,
        crop_size=(size, size),
        interpolation=interpolation,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )


def _published_for(network: nn.Module, published: Any) -> Any:
    """The best weights whose images are of the size that the network was built for.

    vit_h_14 is built for 518 x 518 with its default weights, and for 224 x 224 without.
    """
    built_for = getattr(network, "image_size", None)
    sizes = {
        weights: weights.transforms().crop_size for weights in (published.DEFAULT, *published)
    }
    return next((w for w, size in sizes.items() if size == [built_for]), published.DEFAULT)


def _labels(network: nn.Module, specs: tuple[InputSpec, ...]) -> tuple[str, ...] | None:
    """ImageNet's, in the order that both libraries share with the zoo, for 1000 scores."""
    with torch.no_grad():
        scores = network(specs[0].example())
    is_imagenet = isinstance(scores, torch.Tensor) and scores.shape[-1] == _IMAGENET_CLASSES
    return load_labels("imagenet1k") if is_imagenet else None
