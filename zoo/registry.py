"""Cards: everything known about a model by name, and the table of all of them."""

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
    ``resize_size`` pixels and the middle ``crop_size`` (height, width) is cut out.

    ``resize_size`` is None where the image is squeezed to ``crop_size`` directly.
    """

    color: Literal["RGB", "L"] = "RGB"
    resize_size: int | None
    crop_size: tuple[int, int]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Trained weights that somebody published, and how to know them again.

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
    #: Arguments of the builder that these weights need, e.g. ``{"transform_input": True}``.
    builder_arguments: dict[str, Any] = field(default_factory=dict)
    #: Where the recipe's preprocessing differs from the card's.
    preprocessing: Preprocessing | None = None

    @classmethod
    def from_torchvision(
        cls, file: str, *, top1_percent: float, name: str = "imagenet", **facts: Any
    ) -> PublishedWeights:
        """Weights that torchvision publishes as ``file``, e.g. ``resnet50-0676ba61.pth``.

        What stands between the last hyphen and the suffix is the start of the file's sha256.
        """
        return cls(
            name=name,
            url=f"https://download.pytorch.org/models/{file}",
            sha256=file.removesuffix(".pth").rpartition("-")[2],
            license="BSD-3-Clause",
            source="torchvision",
            top1_percent=top1_percent,
            **facts,
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
    #: Trainable parameters of ``builder()``, as published; None where no number is.
    num_parameters: int | None
    preprocessing: Preprocessing
    #: Name of a label file under ``zoo/data``, e.g. ``imagenet1k``; None where classes have no names.
    labels: str | None
    weights: tuple[PublishedWeights, ...] = ()
    #: The smallest (height, width) that the layers accept.
    min_image_size: tuple[int, int]
    #: Verdict limits for float32 (DESIGN 6.3); anything but (3, 6) carries its reason.
    rho2_limit: float = 3.0
    rhomax_limit: float = 6.0
    limit_reason: str = ""
    #: Renames the keys of checkpoints from before a module was renamed, e.g. DenseNet's ``norm.1``
    #: to ``norm1``. Whoever loads a state dict for this card, downloaded or from a file, calls it
    #: on the whole dict before comparing keys; it returns a new dict and leaves today's keys alone.
    remap_keys: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None

    def published_weights(self, name: str) -> PublishedWeights | None:
        """The published weights of that name, or None."""
        return next((entry for entry in self.weights if entry.name == name), None)


_CARDS: dict[str, Card] = {}
_Builder = TypeVar("_Builder", bound=Callable[..., "nn.Module"])


def register_model(**facts: Any) -> Callable[[_Builder], _Builder]:
    """Enter a builder in the zoo; the model's name is the function's.

    ``facts`` are the fields of :class:`Card` except ``name`` and ``builder``.
    """

    def enter(builder: _Builder) -> _Builder:
        name = builder.__name__
        assert name not in _CARDS, f"two builders are named {name}"
        _CARDS[name] = Card(name=name, builder=builder, **facts)
        return builder

    return enter
