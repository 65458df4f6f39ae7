"""Whose fault: told from where a model is right and where it is wrong."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.runtime.diff.attribution import attribute
from dlzoo.runtime.diff.optimizer_passes import applied_passes, breaking_pass
from dlzoo.runtime.session.run_settings import AS_WRITTEN, RunSettings
from dlzoo.runtime.session.tapped_session import TappedModel

Shape = list[int | str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TappedModel:
    """A convolution, Identity and Relu: things for two passes and a rule to rewrite."""
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    shape_in: Shape = ["n", 3, 6, 6]
    shape_out: Shape = ["n", 8, 4, 4]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
            helper.make_node("Identity", ["a"], ["b"], name="same"),
            helper.make_node("Relu", ["b"], ["y"], name="relu"),
        ],
        "small",
        [helper.make_tensor_value_info("x", 1, shape_in)],
        [helper.make_tensor_value_info("y", 1, shape_out)],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path_factory.mktemp("attribution") / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return TappedModel(path)


X = {"x": np.ones((2, 3, 6, 6), np.float32)}


def test_a_graph_that_is_wrong_everywhere_is_the_exporters(model: TappedModel) -> None:
    found = attribute(model, lambda settings: False, ["cpu"])
    assert found is not None and found.origin == "exporter"
    assert found.settings.optimization == "disabled"


def test_a_graph_that_is_right_everywhere_is_nobodys(model: TappedModel) -> None:
    assert attribute(model, lambda settings: True, ["cpu"]) is None


def test_wrong_on_one_provider_only_is_the_providers(model: TappedModel) -> None:
    found = attribute(model, lambda s: s.provider == "cpu", ["cpu", "cuda"])
    assert found is not None and found.origin == "provider"
    assert found.settings.provider == "cuda" and "right on cpu" in found.text


def test_the_passes_that_changed_the_model_are_listed(
    model: TappedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    passes = applied_passes(model, RunSettings(optimization="all"))
    assert "Level1_RuleBasedTransformer" in passes
    assert any("ActivationFusion" in name or "Nchwc" in name for name in passes)
    assert applied_passes(model, AS_WRITTEN) == ()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("guilty", [0, 1, -1])
def test_bisection_finds_any_pass(model: TappedModel, guilty: int) -> None:
    settings = RunSettings(optimization="all")
    wanted = applied_passes(model, settings)[guilty]
    found = breaking_pass(model, settings, lambda s: wanted in s.disabled_passes)
    assert found[0] == wanted


def test_a_rewrite_rule_is_looked_for_in_its_pass(model: TappedModel) -> None:
    def is_right(settings: RunSettings) -> bool:
        """As if EliminateIdentity were wrong: is Identity gone?"""
        rules = {"Level1_RuleBasedTransformer", "EliminateIdentity"}
        return bool(rules & set(settings.disabled_passes))

    found = breaking_pass(model, RunSettings(optimization="all"), is_right)
    assert found == ("Level1_RuleBasedTransformer", "EliminateIdentity")


def test_what_no_pass_does_is_said(model: TappedModel) -> None:
    found = attribute(model, lambda s: s.optimization == "disabled", ["cpu"])
    assert found is not None and found.origin == "optimizer" and found.passes == ()
    assert "no single pass" in found.text


def test_taps_and_parts_give_what_the_whole_gives(model: TappedModel) -> None:
    settings = AS_WRITTEN
    whole = model.run(X, ["a", "b"], settings)
    assert list(whole) == ["y", "a", "b"]
    np.testing.assert_array_equal(np.maximum(whole["a"], 0), whole["y"])
    alone = model.run_alone([model.graph.nodes[2]], {"b": whole["b"]}, ["y"], settings)
    np.testing.assert_array_equal(alone["y"], whole["y"])


def test_chunks_keep_to_their_size(model: TappedModel) -> None:
    # 2 x 8 x 4 x 4 elements of 16 bytes with their references: 4096 bytes a value.
    assert model.chunks(["a", "b", "y"], X, 2**20) == [["a", "b", "y"]]
    assert model.chunks(["a", "b", "y"], X, 2 * 4096) == [["a", "b"], ["y"]]
    assert model.chunks(["a", "b", "y"], X, 1) == [["a"], ["b"], ["y"]]


def test_wrong_inputs_are_refused(model: TappedModel) -> None:
    with pytest.raises(ArgumentError, match=r"got inputs \['z'\], expected \['x'\]"):
        model.run({"z": X["x"]}, [], AS_WRITTEN)
    with pytest.raises(ArgumentError, match="No optimization level is named 'most'"):
        model.run(X, [], RunSettings(optimization="most"))


def test_no_model_no_session(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    with pytest.raises(BundleError, match="it is empty"):
        TappedModel(path)
