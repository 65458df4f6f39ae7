"""The limits that decide a verdict, defined once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlzoo.errors import ArgumentError

if TYPE_CHECKING:
    from dlzoo.runtime.bundle.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest errors that pass, in units of the noise floor.

    ``rho2`` bounds the RMS of an output's errors, ``rhomax`` the largest one. The defaults are
    those of a float32 model; a card may set others, with a reason.

    Source: docs/DESIGN.md, 6.3.

    Raises:
        ArgumentError: a limit is not a finite number above 0.
    """

    rho2: float = 3.0
    rhomax: float = 6.0

    def __post_init__(self) -> None:
        for name, limit in (("rho2", self.rho2), ("rhomax", self.rhomax)):
            if not 0 < limit < math.inf:
                raise ArgumentError(
                    f"The limit {name} got {limit}, expected a finite number above 0. "
                    "Leave it out for the default."
                )

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Limits:
        """The limits that a bundle's manifest states."""
        return cls(rho2=manifest.rho2_limit, rhomax=manifest.rhomax_limit)


#: A weight tensor is seen where a relative change of this size in it fails the comparison.
SEEN_CHANGE = 0.1
#: Share of the tensors with an effect that must be seen, at each output: else nothing is proved.
POWER_THRESHOLD = 0.9
#: Above this share of the signal, the error of float32 itself says nothing about a candidate.
VACUOUS_SHARE = 1e-3
#: The limits of a float32 model: the default of every function that takes limits.
DEFAULT_LIMITS = Limits()
