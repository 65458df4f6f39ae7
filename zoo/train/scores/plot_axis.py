"""Axes of a plot: their range, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Numbers larger than this are not drawn, nor on a log axis those below its inverse.
LARGEST = 1e100
#: Values whose relative difference is below this count as equal.
_LEAST_SPAN = 1e-9
_MAX_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """A range with its ticks and their labels."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Position of a value: 0 at the low end and 1 at the high end."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(values: Sequence[float], *, is_padded: bool) -> Axis:
    """A linear axis.

    Args:
        values: the values to show.
        is_padded: leave space at the ends; otherwise whole numbers get whole ticks.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    size = max(abs(low), abs(high))
    if high - low <= _LEAST_SPAN * max(size, _LEAST_SPAN):
        room = max(size / 2, _LEAST_SPAN) if size else 0.5
        low, high = (low - room, high + room) if is_padded else (low, high + 2 * room)
    elif is_padded:
        # The axis does not extend below 0 unless values do.
        room = (high - low) / 20
        low = 0.0 if 0 <= low <= 2 * room else low - room
        high += room
    is_whole = not is_padded and all(value == round(value) for value in values)
    step = _nice_step(max((high - low) / _MAX_TICKS, 1.0 if is_whole else 0.0))
    ticks = tuple(n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1))
    return Axis(low, high, ticks, _labels(ticks, step))


def _nice_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, ... times a power of ten that is at least ``least``."""
    power = math.floor(math.log10(least))
    ladder = (
        float(f"{digit}e{n}") for n in (power, power + 1, power + 2) for digit in (1, 2, 5)
    )
    return next(step for step in ladder if step >= least * (1 - 1e-9))


def _labels(ticks: Sequence[float], step: float) -> tuple[str, ...]:
    largest = max(map(abs, ticks), default=0.0)
    if largest < 1e5 and step >= 1e-3:
        decimals = max(0, -math.floor(math.log10(step)))
        return tuple(f"{tick:.{decimals}f}" for tick in ticks)
    digits = max(0, math.floor(math.log10(largest)) - math.floor(math.log10(step)))
    return tuple("0" if tick == 0 else _short(f"{tick:.{digits}e}") for tick in ticks)


def log_axis(values: Sequence[float]) -> Axis:
    """A logarithmic axis.

    Args:
        values: the values to show, all positive.
    """
    low, high = (min(values), max(values)) if values else (0.1, 1.0)
    if high <= low * (1 + _LEAST_SPAN):
        low, high = low / 3, high * 3
    bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
    is_narrow = top - bottom <= 2
    factors = (1, 2, 5) if is_narrow else (1,)
    stride = 1 if is_narrow else -(-(top - bottom) // _MAX_TICKS)
    # From the top down, where most curves begin.
    powers = range(top, bottom - 1, -stride)
    ladder = sorted(float(f"{factor}e{n}") for n in powers for factor in factors)
    # The axis begins and ends at a tick if one is near.
    low = max([tick for tick in ladder if tick <= low], default=low)
    high = min([tick for tick in ladder if tick >= high], default=high)
    ticks = tuple(tick for tick in ladder if low <= tick <= high)
    return Axis(low, high, ticks, tuple(map(_log_label, ticks)), is_log=True)


def _log_label(tick: float) -> str:
    return f"{tick:g}" if 1e-3 <= tick < 1e5 else _short(f"{tick:.0e}")


def _short(number: str) -> str:
    """``1e-05`` as ``1e-5``: without the zeros and the plus sign."""
    mantissa, _, exponent = number.partition("e")
    return f"{mantissa}e{int(exponent)}"
