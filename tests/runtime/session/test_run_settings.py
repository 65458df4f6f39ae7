"""The settings of a run: one object for every kind of session."""

from pathlib import Path

import pytest

from dlzoo.errors import ArgumentError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.session.run_settings import AS_WRITTEN, OPTIMIZATIONS, RunSettings
from dlzoo.runtime.session.session import open_session, open_with
from dlzoo.runtime.session.tapped_session import TappedModel


def test_an_unknown_level_is_refused_before_a_file_is_read() -> None:
    with pytest.raises(ArgumentError, match=r"named 'fast', expected one of disabled, basic,"):
        open_session(Path("missing.onnx"), optimization="fast")


def test_settings_without_passes_differ_in_those_alone() -> None:
    settings = RunSettings(optimization="all", num_threads=1)
    changed = settings.without(["ConvAddFusion"])
    assert changed.disabled_passes == ("ConvAddFusion",)
    assert changed.without([]) == settings and changed != settings
    assert str(settings) == "cpu, optimization all"


def test_a_session_opened_with_settings_is_the_one_asked_for(clean_bundle: Bundle) -> None:
    session = open_with(clean_bundle, RunSettings(optimization="basic"))
    assert (session.provider, session.optimization) == ("cpu", "basic")


@pytest.mark.parametrize("level", OPTIMIZATIONS)
def test_a_tapped_session_takes_the_same_settings(clean_bundle: Bundle, level: str) -> None:
    (golden, *_) = clean_bundle.golden_sets()
    settings = RunSettings(
        optimization=level, session_config={"session.disable_prepacking": "1"}
    )
    tapped = TappedModel(clean_bundle.model_path).run(golden.inputs, [], settings)
    plain = open_with(clean_bundle, settings).run(golden.inputs)
    assert {name: array.tobytes() for name, array in plain.items()} == {
        name: tapped[name].tobytes() for name in plain
    }


def test_a_configuration_that_onnxruntime_refuses_reaches_both_kinds_of_session(
    clean_bundle: Bundle,
) -> None:
    """It would pass unseen if one of them left the entries out."""
    entries = {"session.disable_prepacking": "x" * 100_000}
    settings = RunSettings(optimization="disabled", session_config=entries)
    with pytest.raises(ArgumentError, match=r"`session_config` got .*ONNX Runtime refuses"):
        open_with(clean_bundle, settings)
    with pytest.raises(ArgumentError, match=r"`session_config` got .*ONNX Runtime refuses"):
        TappedModel(clean_bundle.model_path).open([], settings)
    assert AS_WRITTEN.session_config == {}
