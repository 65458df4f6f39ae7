"""At which sizes an open axis is proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec

#: Batches that a dynamic one is proved at; the graph is traced with 2, so 3 is held out.
BATCHES = (1, 2, 3)
#: Held-out image sizes, as fractions of the traced one: smaller, much smaller, larger; the rest
#: stand in where the graph's range excludes one of these.
_SIZE_FRACTIONS = (0.87, 0.67, 1.15, 0.75, 0.6, 1.3, 1.5)
#: The same for narrow ranges, as fractions of the way from the smallest to the largest size.
_RANGE_FRACTIONS = (0.5, 0.25, 0.75, 0.1, 0.9)
_NUM_HELD_OUT = 3


def sizes_to_prove(
    ranges: Mapping[str, AxisRange], traced: Mapping[str, int], *, batch_symbol: str = "batch"
) -> dict[str, tuple[int, ...]]:
    """At which sizes each symbol is proved; of an image axis, the traced size comes first.

    Three image sizes are held out, odd where they can be (so multiples of no stride) and other
    for height than for width; then come the ends of the range: the smallest size, and the
    largest where there is one.

    >>> from dlzoo.runtime.bundle.manifest_fields import AxisRange
    >>> def axis(symbol, low, high=None):
    ...     return AxisRange(symbol=symbol, min=low, max=high, proved=())
    >>> free = {"batch": axis("batch", 1), "height": axis("height", 63), "width": axis("width", 63)}
    >>> sizes_to_prove(free, {"height": 224, "width": 224})
    {'batch': (1, 2, 3), 'height': (224, 195, 151, 257, 63), 'width': (224, 151, 257, 195, 63)}
    >>> sizes_to_prove({"height": axis("height", 224, 512)}, {"height": 224})
    {'height': (224, 257, 291, 337, 512)}
    """
    sizes: dict[str, tuple[int, ...]] = {}
    image_symbols = [symbol for symbol in ranges if symbol != batch_symbol]
    for symbol, axis in ranges.items():
        if symbol == batch_symbol:
            wanted = [n for n in BATCHES if _is_inside(n, axis)]
        else:
            wanted = _image_sizes(axis, traced[symbol], image_symbols.index(symbol))
        sizes[symbol] = tuple(wanted) or (axis.min,)
    return sizes


def _image_sizes(axis: AxisRange, traced: int, turn: int) -> list[int]:
    """The traced size, the held-out ones from the ``turn``-th on, and the ends."""
    candidates = [int(traced * fraction) | 1 for fraction in _SIZE_FRACTIONS]
    if axis.max is not None:
        span = axis.max - axis.min
        candidates += [axis.min + int(span * fraction) for fraction in _RANGE_FRACTIONS]
    ends = [n for n in (axis.min, axis.max) if n is not None and n != traced]
    held_out = [
        n
        for n in dict.fromkeys(candidates)
        if _is_inside(n, axis) and n != traced and n not in ends
    ][:_NUM_HELD_OUT]
    turn %= max(1, len(held_out))
    return [traced, *held_out[turn:], *held_out[:turn], *ends]


def proved_axes(
    inputs: Sequence[TensorSpec],
    dynamic_axes: Mapping[str, AxisRange],
    golden_sets: Sequence[GoldenSet],
) -> dict[str, AxisRange]:
    """The dynamic axes, each with the sizes of the golden data whose inputs are numbers."""
    axes = {}
    for symbol, axis in dynamic_axes.items():
        sizes = {
            golden.inputs[spec.name].shape[spec.dims.index(symbol)]
            for golden in golden_sets
            if golden.is_finite
            for spec in inputs
            if symbol in spec.dims
        }
        axes[symbol] = replace(axis, proved=tuple(sorted(sizes)))
    return axes


def smallest_size(takes: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest size from ``low`` to ``high`` that is taken, if all larger ones are too.

    >>> smallest_size(lambda size: size >= 17, 1, 224)
    17
    """
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if takes(middle) else (middle + 1, high)
    return high


def _is_inside(size: int, axis: AxisRange) -> bool:
    return axis.min <= size and (axis.max is None or size <= axis.max)
