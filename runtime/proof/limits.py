"""The limits that decide a verdict, defined once."""

from __future__ import annotations

from dataclasses import dataclass

#: The limits of a float32 model; a card may set others, with a reason. Source: docs/DESIGN.md, 6.3.
RHO2_LIMIT, RHOMAX_LIMIT = 3.0, 6.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest errors that pass, in units of the noise floor.

    ``rho2`` bounds the RMS of an output's errors, ``rhomax`` the largest one.
    """

    rho2: float = RHO2_LIMIT
    rhomax: float = RHOMAX_LIMIT
