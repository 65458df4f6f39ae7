"""Plan an export: the module to trace, its inputs and its axes, from what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from torch import nn

from dlzoo.errors import DynamicAxisError
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.export.plan.image_size import SizeRange
from dlzoo.export.plan.options import ExportOptions, check_options
from dlzoo.export.plan.pipeline import OUTPUT_NAMES, wrap_network
from dlzoo.export.reference.golden_inputs import golden_inputs
from dlzoo.export.reference.proved_sizes import sizes_to_prove, smallest_size
from dlzoo.export.reference.reference import compute_golden_set, run_in_float32
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.proof.limits import Limits
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.module_call import bind_inputs
from dlzoo.zoo.summary import summarize_call

if TYPE_CHECKING:
    from dlzoo.zoo.registry import Preprocessing
    from dlzoo.zoo.sources.source import ModelSource

Array = npt.NDArray[Any]

#: torch.export specializes sizes 0 and 1, so a dynamic batch is traced at this size.
_TRACED_BATCH = 2


class SizeError(Exception):
    """PyTorch fails at a size of an open axis; ``is_batch`` says whether it is the batch."""

    def __init__(self, reason: str, *, is_batch: bool) -> None:
        super().__init__(reason)
        self.is_batch = is_batch


@dataclass(frozen=True)
class ExportPlan:
    """A network, what was asked of its export, and what follows from both.

    Raises:
        ArgumentError: options that do not go together, or that the network cannot have.
    """

    source: ModelSource
    options: ExportOptions

    def __post_init__(self) -> None:
        check_options(self.source, self.options)

    @cached_property
    def preprocessing(self) -> Preprocessing | None:
        """The source's, for the image size that was asked for."""
        facts, size = self.source.preprocessing, self.options.parsed_image_size
        if facts is None or not isinstance(size, tuple) or size == facts.crop_size:
            return facts
        resize_size = None
        if facts.resize_size is not None and size[0] == size[1]:
            # The same share of the image stays visible, as the weights were measured with.
            resize_size = round(facts.resize_size * size[0] / facts.crop_size[0])
        return replace(facts, crop_size=size, resize_size=resize_size)

    @cached_property
    def module(self) -> nn.Module:
        """The network with what was asked around it."""
        included = self.preprocessing if self.options.include_preprocessing else None
        return wrap_network(
            self.source.network, head=self.options.head, preprocessing=included
        )

    @cached_property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The graph's inputs, each with the shape that it is traced with."""
        num_samples = self.num_samples
        if self.options.include_preprocessing:
            height, width = self.image_size
            channels = self.source.inputs[0].shape[1]
            # Larger than the network's own image in both axes, by different amounts.
            larger = (num_samples, height + 17, width + 50, channels)
            return (InputSpec(name="image", shape=larger, dtype="uint8"),)
        specs = []
        for spec in self.source.inputs:
            shape = spec.shape
            if self._has_batch(spec):
                shape = (num_samples, *shape[1:])
            if spec is self.source.image_input:
                shape = (*shape[:2], *self.image_size)
            specs.append(replace(spec, shape=shape))
        return tuple(specs)

    @property
    def limits(self) -> Limits:
        """The largest errors with which the export passes, as the source states them."""
        return Limits(rho2=self.source.rho2_limit, rhomax=self.source.rhomax_limit)

    @property
    def num_samples(self) -> int:
        """The batch that the network is traced with."""
        return self.options.batch or self.source.fixed_batch or _TRACED_BATCH

    @property
    def is_batch_open(self) -> bool:
        """Whether the graph takes any number of samples."""
        return self.options.batch is None and self.source.fixed_batch is None

    @property
    def is_image_size_open(self) -> bool:
        """Whether the graph was asked to take images of other sizes: preprocessing always does."""
        return isinstance(self.options.parsed_image_size, SizeRange)

    def _has_batch(self, spec: InputSpec) -> bool:
        """Whether axis 0 of an input counts samples: the first input's does, and its equals."""
        first = self.source.inputs[0].shape
        return bool(spec.shape) and bool(first) and spec.shape[0] == first[0]

    @property
    def output_names(self) -> tuple[str, ...]:
        """The network's names of its outputs, or the head's name of the only one."""
        if self.options.head == "logits":
            return self.source.output_names
        return (OUTPUT_NAMES[self.options.head],)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the example, and of all inputs where they are fixed."""
        size = self.options.parsed_image_size
        if isinstance(size, tuple):
            return size
        image = self.source.image_input
        if image is None:
            return (1, 1)
        own = image.shape[2], image.shape[3]
        return own if size is None else (size.nearest(own[0]), size.nearest(own[1]))

    @property
    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Input -> its open axes -> their symbols."""
        axes: dict[str, dict[int, str]] = {}
        for spec, own in zip(self.inputs, self.source.inputs, strict=True):
            axes[spec.name] = (
                {0: "batch"} if self.is_batch_open and self._has_batch(own) else {}
            )
            if self.options.include_preprocessing:
                axes[spec.name] |= {1: "height", 2: "width"}
            elif (
                isinstance(self.options.parsed_image_size, SizeRange)
                and own is self.source.image_input
            ):
                axes[spec.name] |= {2: "height", 3: "width"}
        return axes

    @property
    def _axis_ranges(self) -> dict[str, tuple[int, int]]:
        """Symbols whose sizes the user bounded."""
        size = self.options.parsed_image_size
        if not isinstance(size, SizeRange) or size.high is None:
            return {}
        return dict.fromkeys(("height", "width"), (size.low, size.high))

    @property
    def fixed_options(self) -> ExportOptions:
        """The options without an open axis: as many samples, and as large images, as the source has."""
        size = self.options.parsed_image_size
        batch = self.source.inputs[0].shape[0] if self.is_batch_open else None
        return replace(
            self.options,
            batch=self.options.batch or batch,
            image_size=self.image_size if isinstance(size, SizeRange) else size,
        )

    def image_size_of(self, inputs: Mapping[str, Array]) -> tuple[int, int] | None:
        """Height and width of the image in a golden set, where they are open."""
        if not self.is_image_size_open:
            return None
        assert self.source.image_input is not None
        height, width = inputs[self.source.image_input.name].shape[2:]
        return height, width

    @cached_property
    def num_multiply_adds(self) -> int:
        """The cost of one sample, as one of the batch that is traced: not every network takes one."""
        specs, batch = self.source.inputs, self.num_samples
        shapes = [(batch, *s.shape[1:]) if self._has_batch(s) else s.shape for s in specs]
        examples = {s.name: s.example(n) for s, n in zip(specs, shapes, strict=True)}
        args, kwargs = bind_inputs(self.source.network, examples)
        return summarize_call(self.source.network, args, kwargs).num_multiply_adds // batch

    def export(self) -> OnnxGraph:
        """Trace the module and translate it.

        Raises:
            ExportError: what was asked cannot be delivered.
        """
        graph = onnx_from_torch(
            self.module,
            {spec.name: spec.example() for spec in self.inputs},
            output_names=self.output_names,
            opset=self.options.opset,
            dynamic_axes=self.dynamic_axes,
            axis_ranges=self._axis_ranges,
            target=self.options.target,
            lowerings=self.options.lowerings,
        )
        if not self.is_image_size_open:
            return graph
        axes = dict(graph.dynamic_axes)
        for symbol, smallest in zip(
            ("height", "width"), self._smallest_sizes(axes), strict=True
        ):
            axes[symbol] = replace(axes[symbol], min=max(axes[symbol].min, smallest))
        return replace(graph, dynamic_axes=axes)

    def _smallest_sizes(self, axes: Mapping[str, AxisRange]) -> tuple[int, int]:
        """The smallest height and width that PyTorch takes: torch.export finds lower ones.

        A card knows them; of another network they are looked for, both at once, between what the
        graph allows and what it was traced with.
        """
        if self.source.min_image_size is not None:
            return self.source.min_image_size
        low = max(axes["height"].min, axes["width"].min)
        smallest = smallest_size(self._takes, low, max(low, *self.image_size))
        return smallest, smallest

    def _takes(self, size: int) -> bool:
        """Whether PyTorch runs on images of that height and width."""
        examples = {
            spec.name: spec.example(
                (1, *spec.shape[1:2], size, size) if own is self.source.image_input else None
            )
            for spec, own in zip(self.inputs, self.source.inputs, strict=True)
        }
        try:
            run_in_float32(self.module, examples, self.output_names)
        except (RuntimeError, ValueError):
            return False
        return True

    def golden_inputs(self, graph: OnnxGraph, seed: int) -> list[tuple[str, dict[str, Array]]]:
        """The inputs of the proof, by kind: every dynamic axis at sizes of its own."""
        height, width = self.image_size
        sizes = sizes_to_prove(graph.dynamic_axes, {"height": height, "width": width})
        return golden_inputs(
            graph.inputs,
            sizes=sizes,
            seed=seed,
            integer_ranges={spec.name: (spec.low, spec.high) for spec in self.inputs},
        )

    def golden_set(self, name: str, kind: str, inputs: dict[str, Array]) -> GoldenSet:
        """PyTorch's answers to one set of inputs, in float64, and its noise floor.

        Raises:
            SizeError: PyTorch itself cannot take inputs of this size, though it takes those
                that were traced.
        """
        try:
            return compute_golden_set(
                name, kind, self.module, inputs, output_names=self.output_names
            )
        except (RuntimeError, IndexError, ValueError) as error:
            size = self.image_size_of(inputs)
            where = (
                f"batch {len(next(iter(inputs.values())))}"
                if size is None
                else f"{size[0]}x{size[1]}"
            )
            if size is None and not self.is_batch_open:
                raise
            text = (str(error).splitlines() or [type(error).__name__])[0]
            raise SizeError(
                f"PyTorch itself fails at {where} ({text})", is_batch=size is None
            ) from None

    def open_axis_error(
        self, *, is_batch: bool, reason: str, is_fix_proved: bool
    ) -> DynamicAxisError:
        """The error for a network whose batch, or height and width, cannot be open.

        Args:
            is_batch: whether it is the batch.
            reason: what is wrong, and where.
            is_fix_proved: whether the export passes with ``fixed_options``.
        """
        fixed = self.fixed_options
        argument = (
            f"`batch={fixed.batch}`" if is_batch else f"`image_size={fixed.parsed_image_size}`"
        )
        subject = "batch" if is_batch else "height and width"
        fix = f"Fix the {subject}: {argument}, with which the export passes"
        if not is_fix_proved:
            fix = (
                f"With {argument} the export fails, too: write the forward so that it holds at "
                "every size"
            )
        return DynamicAxisError(
            f"{self.source.name} cannot have an open {subject}: {reason.rstrip('.')}. {fix}."
        )
