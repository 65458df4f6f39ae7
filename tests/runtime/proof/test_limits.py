"""The limits of a verdict: their defaults, and what is refused."""

import math

import pytest

from dlzoo.errors import ArgumentError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS, Limits
from dlzoo.zoo.registry import Card


def test_the_defaults_are_those_of_a_card() -> None:
    """The zoo may not import the runtime, so a card states the same numbers."""
    fields = Card.__dataclass_fields__
    assert Limits(
        rho2=fields["rho2_limit"].default, rhomax=fields["rhomax_limit"].default
    ) == (DEFAULT_LIMITS)


def test_a_bundle_states_its_own(clean_bundle: Bundle) -> None:
    manifest = clean_bundle.manifest
    found = Limits.from_manifest(manifest)
    assert (found.rho2, found.rhomax) == (manifest.rho2_limit, manifest.rhomax_limit)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["rho2", "rhomax"])
def test_a_limit_that_lets_everything_or_nothing_pass_is_refused(
    name: str, value: float
) -> None:
    with pytest.raises(
        ArgumentError, match=rf"The limit {name} got .*, expected a finite number"
    ):
        Limits(**{name: value})
