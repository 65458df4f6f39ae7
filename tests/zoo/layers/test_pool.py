"""Poolings against their formulas."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlzoo.zoo.layers.conv import output_size
from dlzoo.zoo.layers.layer_registry import get_layer

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 8), st.integers(1, 8))


def windows(n_in: int, kernel: int, stride: int, padding: int, ceil_mode: bool) -> list[range]:
    """The pixels under each place of a window; those below 0 or beyond n_in are padding."""
    places = output_size(n_in, kernel, stride=stride, padding=padding, ceil_mode=ceil_mode)
    first = [place * stride - padding for place in range(places)]
    return [range(start, min(start + kernel, n_in + padding)) for start in first]


def inside(window: range, n_in: int) -> slice:
    return slice(max(window.start, 0), min(window.stop, n_in))


@settings(max_examples=40, deadline=None)
@given(
    shape=SIZES,
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    ceil_mode=st.booleans(),
    seed=SEEDS,
    data=st.data(),
)
def test_max_and_average_pool(
    shape: tuple[int, ...],
    kernel: int,
    stride: int,
    ceil_mode: bool,
    seed: int,
    data: st.DataObject,
    against_formula: Callable[..., None],
) -> None:
    padding = data.draw(st.integers(0, kernel // 2))
    assume(min(shape[2:]) + 2 * padding >= kernel)
    rows, columns = (windows(n, kernel, stride, padding, ceil_mode) for n in shape[2:])

    def of_windows(x: Array, reduce: Callable[[Array, int], Array]) -> Array:
        return np.stack(
            [
                np.stack(
                    [
                        reduce(
                            x[..., inside(row, shape[2]), inside(column, shape[3])].reshape(
                                *shape[:2], -1
                            ),
                            len(row) * len(column),
                        )
                        for column in columns
                    ],
                    -1,
                )
                for row in rows
            ],
            -2,
        )

    def largest(values: Array, _: int) -> Array:
        place = values.real.argmax(-1)[..., None]
        return np.take_along_axis(values, place, -1)[..., 0]

    arguments = (kernel, stride, padding)
    against_formula(
        get_layer("max_pool").build(*arguments, ceil_mode=ceil_mode),
        lambda x, _: of_windows(x, largest),
        shape,
        seed,
    )
    against_formula(
        get_layer("average_pool").build(*arguments, ceil_mode=ceil_mode),
        lambda x, _: of_windows(x, lambda values, area: values.sum(-1) / area),
        shape,
        seed,
    )
    against_formula(
        get_layer("average_pool").build(
            *arguments, ceil_mode=ceil_mode, count_include_pad=False
        ),
        lambda x, _: of_windows(x, lambda values, _: values.mean(-1)),
        shape,
        seed,
    )


@settings(max_examples=20, deadline=None)
@given(shape=SIZES, places=st.integers(1, 5), seed=SEEDS)
def test_adaptive_and_global_average_pool(
    shape: tuple[int, ...], places: int, seed: int, against_formula: Callable[..., None]
) -> None:
    def bins(n_in: int) -> list[slice]:
        return [
            slice(place * n_in // places, math.ceil((place + 1) * n_in / places))
            for place in range(places)
        ]

    def formula(x: Array, _: Mapping[str, Array]) -> Array:
        rows = [
            np.stack([x[..., row, column].mean((2, 3)) for column in bins(shape[3])], -1)
            for row in bins(shape[2])
        ]
        return np.stack(rows, -2)

    against_formula(get_layer("adaptive_average_pool").build(places), formula, shape, seed)
    against_formula(
        get_layer("global_average_pool").build(),
        lambda x, _: x.mean((2, 3), keepdims=True),
        shape,
        seed,
    )


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    kernel=st.integers(1, 3),
    channels=st.integers(1, 3),
    seed=SEEDS,
)
def test_trainable_subsampling(
    size: tuple[int, int],
    kernel: int,
    channels: int,
    seed: int,
    against_formula: Callable[..., None],
) -> None:
    height, width = (n // kernel for n in size)

    def formula(x: Array, values: Mapping[str, Array]) -> Array:
        whole = x[:, :, : height * kernel, : width * kernel]
        sums = whole.reshape(2, channels, height, kernel, width, kernel).sum((3, 5))
        return values["coefficient"][:, None, None] * sums + values["bias"][:, None, None]

    layer = get_layer("trainable_subsampling").build(channels, kernel)
    against_formula(layer, formula, (2, channels, *size), seed)
