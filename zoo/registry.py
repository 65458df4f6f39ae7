"""Model cards: everything known about a model, registered under its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where an architecture was published."""

    title: str
    authors: str
    year: int
    url: str


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the network's input: resize, crop, scale, normalize.

    ``x = (pixel / 255 - mean) / std`` per channel, after the shorter side is resized to
    ``resize_size`` pixels and the centre is cropped to ``crop_size`` (height, width).

    If ``resize_size`` is None, the image is squeezed to ``crop_size`` directly.
    """

    color: Literal["RGB", "L"] = "RGB"
    resize_size: int | None
    crop_size: tuple[int, int]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Published trained weights, and how to recognize their file.

    ``sha256`` may be a prefix of the digest, as torchvision publishes it.
    """

    name: str
    url: str
    sha256: str
    size_bytes: int | None = None
    license: str
    source: str
    top1_percent: float | None = None
    num_classes: int = 1000
    #: Arguments that the builder needs for these weights, e.g. ``{"transform_input": True}``.
    builder_arguments: dict[str, Any] = field(default_factory=dict)
    #: Preprocessing of these weights, if it differs from the card's.
    preprocessing: Preprocessing | None = None

    @classmethod
    def from_torchvision(
        cls,
        file: str,
        *,
        top1_percent: float,
        name: str = "imagenet",
        size_bytes: int | None = None,
        num_classes: int = 1000,
        builder_arguments: Mapping[str, Any] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> PublishedWeights:
        """Weights that torchvision publishes as ``file``, e.g. ``resnet50-0676ba61.pth``.

        The digits between the last hyphen and the suffix are the start of the file's sha256. The
        other arguments are the fields of :class:`PublishedWeights`.
        """
        return cls(
            name=name,
            url=f"https://download.pytorch.org/models/{file}",
            sha256=file.removesuffix(".pth").rpartition("-")[2],
            license="BSD-3-Clause",
            source="torchvision",
            top1_percent=top1_percent,
            size_bytes=size_bytes,
            num_classes=num_classes,
            builder_arguments=dict(builder_arguments or {}),
            preprocessing=preprocessing,
        )


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything known about a model by name."""

    name: str
    family: str
    summary: str
    builder: Callable[..., nn.Module]
    paper: Paper
    #: (channels, height, width) that the paper or the published weights use.
    input_shape: tuple[int, int, int]
    num_classes: int
    #: Trainable parameters of ``builder()``, as published; None if unpublished.
    num_parameters: int | None
    preprocessing: Preprocessing
    #: Name of a label file under ``zoo/data``, e.g. ``imagenet1k``; None if classes have no names.
    labels: str | None
    weights: tuple[PublishedWeights, ...] = ()
    #: The smallest (height, width) that the layers accept.
    min_image_size: tuple[int, int]
    #: Verdict limits for float32 (DESIGN 6.3); limits other than (3, 6) need a reason.
    rho2_limit: float = 3.0
    rhomax_limit: float = 6.0
    limit_reason: str = ""
    #: Renames the keys of checkpoints from before a module was renamed, e.g. DenseNet's ``norm.1``
    #: to ``norm1``. Called with every state dict that is loaded for this card, before keys are
    #: compared; it returns a new dict and does not change today's keys.
    remap_keys: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None

    def published_weights(self, name: str) -> PublishedWeights | None:
        """The published weights of that name, or None."""
        return next((entry for entry in self.weights if entry.name == name), None)


_CARDS: dict[str, Card] = {}
_Builder = TypeVar("_Builder", bound=Callable[..., "nn.Module"])


def register_model(
    *,
    family: str,
    summary: str,
    paper: Paper,
    input_shape: tuple[int, int, int],
    num_classes: int,
    num_parameters: int | None,
    preprocessing: Preprocessing,
    labels: str | None,
    min_image_size: tuple[int, int],
    weights: tuple[PublishedWeights, ...] = (),
    rho2_limit: float = 3.0,
    rhomax_limit: float = 6.0,
    limit_reason: str = "",
    remap_keys: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None,
) -> Callable[[_Builder], _Builder]:
    """Register a model's builder; a decorator. The model has the name of the function.

    Args:
        family: models of one family are listed together, e.g. ``ResNet``.
        summary: what distinguishes the model, in one line.
        paper: where the architecture was published.
        input_shape: (channels, height, width) that the paper or the published weights use.
        num_classes: number of outputs by default.
        num_parameters: trainable parameters of ``builder()``, as published; None if unpublished.
        preprocessing: how an image becomes the input.
        labels: name of a label file under ``zoo/data``; None if classes have no names.
        min_image_size: the smallest (height, width) that the layers accept.
        weights: the published weights.
        rho2_limit: verdict limit for the root mean square error in float32.
        rhomax_limit: verdict limit for the largest error in float32.
        limit_reason: the reason for limits other than the default ones.
        remap_keys: renames keys of old checkpoints, see :class:`Card`.
    """

    def register(builder: _Builder) -> _Builder:
        name = builder.__name__
        assert name not in _CARDS, f"two builders are named {name}"
        _CARDS[name] = Card(
            name=name,
            family=family,
            summary=summary,
            builder=builder,
            paper=paper,
            input_shape=input_shape,
            num_classes=num_classes,
            num_parameters=num_parameters,
            preprocessing=preprocessing,
            labels=labels,
            weights=weights,
            min_image_size=min_image_size,
            rho2_limit=rho2_limit,
            rhomax_limit=rhomax_limit,
            limit_reason=limit_reason,
            remap_keys=remap_keys,
        )
        return builder

    return register
