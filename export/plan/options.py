"""The options of an export, and which of them go together and with which network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dlzoo.errors import ArgumentError
from dlzoo.export.convert.onnx_from_torch import DEFAULT_OPSET
from dlzoo.export.plan.image_size import ImageSize, SizeRange, parse_image_size

if TYPE_CHECKING:
    from dlzoo.zoo.sources.source import ModelSource


def check_options(source: ModelSource, options: ExportOptions) -> None:
    """Refuse what the network cannot have, before anything is traced.

    Raises:
        ArgumentError: options that do not go together, or not with this network.
    """
    size, smallest = options.parsed_image_size, source.min_image_size or (1, 1)
    if options.head != "logits" and not source.gives_scores:
        raise ArgumentError(
            f"`head` got {options.head!r}, but {source.name} does not give one "
            f"tensor [N, K] of scores: its outputs are {', '.join(source.output_names)}. "
            "Leave `head` out."
        )
    if size is not None and source.image_input is None:
        raise ArgumentError(
            f"`image_size` got {_text(size)}, but {source.name} has no input that alone is "
            "a float32 image [N, C, H, W]. Say its sizes in `inputs`."
        )
    if options.batch not in (None, source.fixed_batch or options.batch):
        raise ArgumentError(
            f"`batch` got {options.batch}, but {source.name} was traced for a "
            f"batch of {source.fixed_batch} alone. Trace it with a dynamic batch."
        )
    if options.include_preprocessing:
        if source.preprocessing is None:
            raise ArgumentError(
                f"{source.name} has no preprocessing to include: only models of the zoo "
                "have. Leave `include_preprocessing` out."
            )
        if size is not None:
            raise ArgumentError(
                f"`image_size` got {_text(size)} beside `include_preprocessing`, which takes "
                "images of every size already. Leave one of the two out."
            )
    lowest = size if isinstance(size, tuple) else None
    if isinstance(size, SizeRange) and size.high is not None:
        lowest = (size.low, size.low)
    if lowest is not None and (lowest[0] < smallest[0] or lowest[1] < smallest[1]):
        raise ArgumentError(
            f"`image_size` got {_text(size)}, expected at least "
            f"{smallest[0]},{smallest[1]}: {source.name} halves the image too often "
            "for less. Choose a larger size."
        )


def _text(size: ImageSize) -> str:
    return f"{size[0]},{size[1]}" if isinstance(size, tuple) else str(size)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of an export.

    ``batch`` None is a dynamic one; ``image_size`` None is the card's, and a text is read as
    :func:`~dlzoo.export.plan.image_size.parse_image_size` says.
    ``target`` is where the model will run, ``lowerings`` the spelling of operators for which
    the fastest is not wanted (``dlzoo ops`` lists both).
    """

    opset: int = DEFAULT_OPSET
    batch: int | None = None
    image_size: ImageSize | str = None
    head: Literal["logits", "softmax", "sigmoid"] = "logits"
    include_preprocessing: bool = False
    target: str = "ort-cpu"
    lowerings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.image_size, str):
            object.__setattr__(self, "image_size", parse_image_size(self.image_size))

    @property
    def parsed_image_size(self) -> ImageSize:
        """``image_size``, parsed."""
        assert not isinstance(self.image_size, str), self.image_size
        return self.image_size
