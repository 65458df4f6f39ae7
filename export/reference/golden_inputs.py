"""The inputs that a model is proved on: few samples, each of a kind that finds other faults.

Everything follows from the seed through NumPy's PCG64, whose stream does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.export.reference.proved_sizes import BATCHES
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec

Array = npt.NDArray[Any]
_Fill = Callable[[np.random.Generator, tuple[int, ...], np.dtype[Any]], Array]

#: A large fixed batch gets fewer sets, not a larger total than about this many samples.
MAX_SAMPLES = 9
#: The range of an input's second scale (DESIGN 6): activations saturate, errors do not hide.
_LARGE_SCALE = 50.0
#: Scales to prove further where inputs of N(0, 1) leave the weights unseen: a trained classifier is
#: so sure of them that its softmax gives 0 and 1 alone.
SMALL_SCALES = (0.1, 0.01)


def golden_inputs(
    inputs: Sequence[TensorSpec],
    *,
    sizes: Mapping[str, Sequence[int]],
    seed: int,
    batch_symbol: str = "batch",
    integer_ranges: Mapping[str, tuple[int, int]] | None = None,
) -> list[tuple[str, dict[str, Array]]]:
    """Draw sets of inputs, each with the name of its kind.

    At the first image size: N(0, 1) alone, 50 times as much in a batch of 2, zeros, denormals and
    uniform values in a held-out batch, and a sample each with one NaN, +Inf or -Inf element. Then
    one set for each further size of an image. Integer inputs (8-bit images) get noise, a smooth
    picture, and black, white and stripes.

    Args:
        inputs: what the graph takes.
        sizes: the sizes to prove of each symbol in ``inputs``, see
            :func:`~dlzoo.export.reference.proved_sizes.sizes_to_prove`.
        seed: draws everything.
        batch_symbol: the symbol of the axis that counts samples.
        integer_ranges: lowest and highest value of inputs that hold indices; 0 and 1 without.
    """
    batches = tuple(sizes.get(batch_symbol, ()))
    batches += batches[-1:] * (len(BATCHES) - len(batches))
    has_floats = any(np.dtype(spec.dtype).kind == "f" for spec in inputs)
    kinds = list(_INTEGER_KINDS)
    if has_floats:
        largest = batches[-1] if batches else _smallest_batch(inputs)
        kinds = [*_FLOAT_KINDS, *(_SPECIAL_KINDS if largest < 3 else _SPECIAL_KINDS_TOGETHER)]
    home = {symbol: values[0] for symbol, values in sizes.items()}
    plans: list[tuple[str, _Fill, dict[str, int]]] = []
    for number, (kind, fill) in enumerate(kinds):
        batch = {batch_symbol: batches[min(number, 2)]} if batches else {}
        plans.append((kind, fill, home | batch))
    first_kind, first_fill = kinds[0]
    image_symbols = [symbol for symbol in sizes if symbol != batch_symbol]
    for i in range(1, max((len(sizes[symbol]) for symbol in image_symbols), default=1)):
        held_out = {symbol: sizes[symbol][i % len(sizes[symbol])] for symbol in image_symbols}
        batch = {batch_symbol: batches[i % 2]} if batches else {}
        shape = "x".join(str(size) for size in held_out.values())
        plans.append((f"{first_kind} at {shape}", first_fill, held_out | batch))

    ranges = integer_ranges or {}
    sets: list[tuple[str, dict[str, Array]]] = []
    num_samples = 0
    for i, (kind, fill, symbols) in enumerate(plans):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, i])))
        arrays = {
            spec.name: _fill(spec, fill, symbols, generator, ranges.get(spec.name, (0, 1)))
            for spec in inputs
        }
        batch_size = max((len(a) for a in arrays.values() if a.ndim), default=1)
        is_required = len(sets) < 2 or any(symbols[s] != home[s] for s in image_symbols)
        if is_required or num_samples + batch_size <= MAX_SAMPLES:
            sets.append((kind, arrays))
            num_samples += batch_size
    return sets


def ordinary_inputs(
    inputs: Mapping[str, Array], *, seed: int, scale: float = 1.0
) -> tuple[str, dict[str, Array]]:
    """Inputs of the same sizes, of the first kind: N(0, 1), or noise for 8-bit images.

    Args:
        inputs: a set of those sizes; its indices and masks are kept.
        seed: draws the values.
        scale: of floating-point inputs.

    Returns:
        The name of the kind, and the inputs.
    """
    has_floats = any(array.dtype.kind == "f" for array in inputs.values())
    kind, fill = _INTEGER_KINDS[0]
    if has_floats:
        kind, fill = f"normal x{scale:g}", _normal(scale)
    generator = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, len(inputs)]))
    )
    drawn = {}
    for name, array in inputs.items():
        is_image = array.dtype.kind == "f" or array.dtype == np.uint8
        drawn[name] = _drawn(array.shape, array.dtype, fill, generator) if is_image else array
    return kind, drawn


def _drawn(
    shape: tuple[int, ...], dtype: np.dtype[Any], fill: _Fill, generator: np.random.Generator
) -> Array:
    return np.ascontiguousarray(fill(generator, shape, dtype).astype(dtype, copy=False))


def _smallest_batch(inputs: Sequence[TensorSpec]) -> int:
    """The number of samples of inputs whose sizes are all fixed."""
    firsts = [spec.dims[0] for spec in inputs if spec.dims]
    return min((size for size in firsts if isinstance(size, int)), default=1)


def _fill(
    spec: TensorSpec,
    fill: _Fill,
    symbols: Mapping[str, int],
    generator: np.random.Generator,
    integer_range: tuple[int, int],
) -> Array:
    shape = tuple(symbols[d] if isinstance(d, str) else d for d in spec.dims)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f" or dtype == np.uint8:
        return _drawn(shape, dtype, fill, generator)
    # Indices, lengths and masks: without a range, 0 and 1 are the safest guess.
    low, high = integer_range
    return generator.integers(low, high + 1, shape).astype(dtype)


def _normal(scale: float) -> _Fill:
    def fill(
        generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        return generator.standard_normal(shape) * scale

    return fill


def _mixed(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Zeros, denormals and U[0, 1), a sample of each by turns."""
    tiny = np.finfo(dtype)
    array = np.zeros(shape, dtype)
    samples = array if array.ndim > 1 else array[None]
    for i, sample in enumerate(samples):
        if i % 3 == 1:
            steps = generator.integers(1, 2**tiny.nmant, sample.shape)
            signs = generator.choice((-1.0, 1.0), sample.shape)
            sample[...] = steps * signs * np.float64(tiny.smallest_subnormal)
        elif i % 3 == 2:
            sample[...] = generator.random(sample.shape)
    return array


def _one_element(value: float) -> _Fill:
    """N(0, 1) with one element of every sample replaced, in the middle."""

    def fill(
        generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        array = generator.standard_normal(shape)
        samples = array if array.ndim > 1 else array[None]
        for sample in samples:
            sample[(0, *(n // 2 for n in sample.shape[1:]))] = value
        return array

    return fill


def _by_sample(*fills: _Fill) -> _Fill:
    """A kind for each sample; the last for all that are left."""

    def fill(
        generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        if len(shape) < 2:  # a value a sample: nothing to put beside it
            return fills[-1](generator, shape, dtype)
        one = (1, *shape[1:])
        which = [fills[min(i, len(fills) - 1)] for i in range(shape[0])]
        return np.concatenate([f(generator, one, dtype) for f in which])

    return fill


def _noise(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    return generator.integers(0, 256, shape, dtype=np.uint8)


def _picture(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Waves of a few pixels' to the whole image's length, as photos have them.

    Shape: [N, H, W, C]; other ranks get noise.
    """
    if len(shape) != 4:
        return _noise(generator, shape, dtype)
    y, x = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    image = np.zeros(shape)
    for n, c in np.ndindex(shape[0], shape[3]):
        for length in (4.0, 16.0, 64.0, 256.0):
            angle, phase = generator.random(2) * 2 * np.pi
            position = (np.cos(angle) * x + np.sin(angle) * y) / length
            image[n, :, :, c] += length**0.5 * np.sin(2 * np.pi * position + phase)
    limit = np.abs(image).max() or 1.0
    return np.round((image / limit + 1.0) * 127.5).astype(np.uint8)


def _extremes(
    generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Black, white and stripes, a sample of each by turns."""
    array = np.zeros(shape, np.uint8)
    for i, sample in enumerate(array if array.ndim > 1 else array[None]):
        if i % 3 == 1:
            sample[...] = 255
        elif i % 3 == 2:
            sample[..., ::2, :] = 255
    return array


_FLOAT_KINDS: tuple[tuple[str, _Fill], ...] = (
    ("normal x1", _normal(1.0)),
    ("normal x50", _normal(_LARGE_SCALE)),
    ("zeros, denormals, uniform", _mixed),
)
_SPECIAL_KINDS: tuple[tuple[str, _Fill], ...] = (
    ("NaN pixel", _one_element(np.nan)),
    ("+Inf pixel", _one_element(np.inf)),
    ("-Inf pixel", _one_element(-np.inf)),
)
_SPECIAL_KINDS_TOGETHER: tuple[tuple[str, _Fill], ...] = (
    ("NaN, +Inf and -Inf pixel", _by_sample(*(fill for _, fill in _SPECIAL_KINDS))),
)
_INTEGER_KINDS: tuple[tuple[str, _Fill], ...] = (
    ("noise image", _noise),
    ("smooth image", _picture),
    ("black, white, stripes", _extremes),
)
