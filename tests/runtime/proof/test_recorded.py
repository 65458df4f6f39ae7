"""Recorded outputs of others: sound graphs pass, faulty ones do not, and what is not known is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dlzoo.errors import ArgumentError, BundleError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
from dlzoo.runtime.onnx_reader.tensor_proto import decode_tensor, encode_tensor
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS
from dlzoo.runtime.proof.recorded import Tolerance, recorded_golden_sets
from dlzoo.runtime.proof.report import Report
from dlzoo.runtime.proof.validate import verify_model

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
Array = np.ndarray[Any, Any]


def save_data(folder: Path, inputs: dict[str, Array], outputs: dict[str, Array]) -> Path:
    folder.mkdir(parents=True)
    for role, tensors in (("input", inputs), ("output", outputs)):
        for i, (name, array) in enumerate(tensors.items()):
            (folder / f"{role}_{i}.pb").write_bytes(encode_tensor(name, array))
    return folder


def verify_recorded(path: Path, folder: Path, *optimizations: str, **how: Any) -> Report:
    sets, notes = recorded_golden_sets(path, folder, limits=DEFAULT_LIMITS, **how)
    levels = optimizations or ("all",)
    return verify_model(path, sets, optimizations=levels, notes=notes, limits=DEFAULT_LIMITS)


# --- the graphs that ship with onnx --------------------------------------------------------


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda p: p.stem)
def test_the_graphs_that_ship_with_onnx_match_their_records(
    path: Path, tmp_path: Path
) -> None:
    (spec,) = read_onnx_header(path).inputs
    # The ramp that onnx/backend/test/runner/__init__.py (generate_dummy_data) feeds them.
    size = int(np.prod(spec.dims))
    x = (np.arange(size).reshape(spec.dims) / size).astype(np.float32)
    record = path.with_name(f"{path.stem}_output_0.pb").read_bytes()
    save_data(tmp_path / "test_data_set_0", {"": x}, {"": decode_tensor(record)[1]})
    sets, notes = recorded_golden_sets(path, tmp_path, limits=DEFAULT_LIMITS)
    wrong = replace(
        sets[0],
        name="wrong",
        reference={name: array * 1.0001 for name, array in sets[0].reference.items()},
    )
    report = verify_model(path, [*sets, wrong], notes=notes, limits=DEFAULT_LIMITS)
    assert [c.verdict for c in report.candidates] == ["pass", "fail"]
    assert report.opset == 9 and report.power is None
    # Their weights are all the same number, so their outputs are, too: said, not hidden.
    assert any("few faults in the weights would show" in note for note in report.notes)


# --- a graph with weights that differ ------------------------------------------------------


@pytest.fixture
def recorded(clean_bundle: Bundle, golden_sets: list[GoldenSet], tmp_path: Path) -> Path:
    """The small network's outputs as another float32 runtime (onnx.reference) records them."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load(clean_bundle.model_path))
    for number in (0, 1, 2):
        x = golden_sets[number].inputs["image"]
        (logits,) = evaluator.run(None, {"image": x})
        save_data(tmp_path / f"test_data_set_{number}", {"image": x}, {"logits": logits})
    return tmp_path


def test_a_sound_model_passes_at_every_level(clean_bundle: Bundle, recorded: Path) -> None:
    report = verify_recorded(clean_bundle.model_path, recorded, "disabled", "basic", "all")
    assert report, report.explanation
    assert len(report.candidates) == 9
    assert all(c.rho2 is not None and c.rho2 < 3 for c in report.candidates)
    assert {c.kind for c in report.candidates} == {"recorded"}
    assert "its noise floor is estimated by moving the inputs" in report.notes[0]


@pytest.mark.parametrize("name", ["conv1.weight", "conv2.weight", "fc.weight", "conv1.bias"])
def test_a_tensor_that_is_off_by_a_thousandth_fails(
    clean_bundle: Bundle, recorded: Path, tmp_path: Path, name: str
) -> None:
    model = onnx.load(clean_bundle.model_path)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.001), name)
    )
    onnx.save(model, tmp_path / "off.onnx")
    assert verify_recorded(tmp_path / "off.onnx", recorded).verdict == "fail"


def test_one_weight_that_is_off_by_a_thousandth_fails(
    clean_bundle: Bundle, recorded: Path, tmp_path: Path
) -> None:
    model = onnx.load(clean_bundle.model_path)
    tensor = next(t for t in model.graph.initializer if t.name == "fc.weight")
    weights = numpy_helper.to_array(tensor).copy()
    weights.flat[np.abs(weights).argmax()] *= 1.001
    tensor.CopyFrom(numpy_helper.from_array(weights, "fc.weight"))
    onnx.save(model, tmp_path / "off.onnx")
    assert verify_recorded(tmp_path / "off.onnx", recorded).verdict == "fail"


def test_the_floor_does_not_depend_on_what_was_recorded(
    clean_bundle: Bundle, recorded: Path, tmp_path: Path
) -> None:
    sets, _ = recorded_golden_sets(clean_bundle.model_path, recorded, limits=DEFAULT_LIMITS)
    garbage = tmp_path / "garbage"
    save_data(garbage, sets[0].inputs, {"logits": np.full((1, 10), 1e6, np.float32)})
    others, _ = recorded_golden_sets(clean_bundle.model_path, garbage, limits=DEFAULT_LIMITS)
    assert others[0].noise == sets[0].noise
    assert verify_recorded(clean_bundle.model_path, garbage).verdict == "fail"


def test_one_folder_of_data_is_taken_as_it_is(clean_bundle: Bundle, recorded: Path) -> None:
    report = verify_recorded(clean_bundle.model_path, recorded / "test_data_set_1")
    assert report and len(report.candidates) == 1


def test_a_bundles_own_golden_data_are_such_data(clean_bundle: Bundle) -> None:
    assert verify_recorded(clean_bundle.model_path, clean_bundle.path / "golden")


# --- a tolerance of the caller's own -------------------------------------------------------


@pytest.mark.parametrize(("rtol", "verdict"), [(2e-3, "pass"), (5e-4, "fail")])
def test_a_tolerance_is_relative_to_the_largest_recorded(
    clean_bundle: Bundle, recorded: Path, tmp_path: Path, rtol: float, verdict: str
) -> None:
    sets, _ = recorded_golden_sets(clean_bundle.model_path, recorded, limits=DEFAULT_LIMITS)
    y = sets[0].reference["logits"].astype(np.float32)
    largest = np.abs(y).argmax()
    y.flat[largest] *= 1.001
    folder = save_data(tmp_path / "moved", sets[0].inputs, {"logits": y})
    tolerance = Tolerance(rtol=rtol, atol=0.0)
    report = verify_recorded(clean_bundle.model_path, folder, tolerance=tolerance)
    assert report.verdict == verdict
    assert "its noise floor is as the caller said" in report.notes[0]


@pytest.mark.parametrize(
    ("rtol", "atol"), [(0.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, float("inf"))]
)
def test_a_tolerance_that_says_nothing_is_refused(rtol: float, atol: float) -> None:
    with pytest.raises(
        ArgumentError, match="expected finite numbers from 0 up, one of them above"
    ):
        Tolerance(rtol=rtol, atol=atol)


def test_integer_inputs_need_a_tolerance(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    x_info = helper.make_tensor_value_info("x", TensorProto.UINT8, [3])
    y_info = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    graph = helper.make_graph([cast], "g", [x_info], [y_info])
    path = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        path,
    )
    x = np.uint8([1, 2, 3])
    folder = save_data(tmp_path / "data", {"x": x}, {"y": x.astype(np.float32)})
    with pytest.raises(
        ArgumentError, match=r"takes no float input.*Give a tolerance: `rtol` and `atol`"
    ):
        verify_recorded(path, folder)
    assert verify_recorded(path, folder, tolerance=Tolerance(rtol=1e-6, atol=0.0))


# --- data that are not this model's --------------------------------------------------------


def test_data_of_another_model_are_refused(clean_bundle: Bundle, tmp_path: Path) -> None:
    x, y = np.zeros((1, 3, 12, 12), np.float32), np.zeros((1, 10), np.float32)
    folder = save_data(tmp_path / "data", {"image": x, "mask": x}, {"logits": y})
    with pytest.raises(
        BundleError, match=r"holds 2 inputs, model\.onnx has 1\. Give the data of"
    ):
        verify_recorded(clean_bundle.model_path, folder)
    folder = save_data(tmp_path / "more", {"image": x}, {"logits": y, "features": y})
    with pytest.raises(BundleError, match=r"holds 2 outputs, model\.onnx has 1"):
        verify_recorded(clean_bundle.model_path, folder)


def test_inputs_that_the_model_does_not_take_are_refused(
    clean_bundle: Bundle, tmp_path: Path
) -> None:
    x, y = np.zeros((1, 3, 9, 9), np.float32), np.zeros((1, 10), np.float32)
    folder = save_data(tmp_path / "data", {"image": x}, {"logits": y})
    with pytest.raises(ArgumentError, match="Got: 9 Expected: 12"):
        verify_recorded(clean_bundle.model_path, folder)


def test_a_folder_without_data_is_refused(clean_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"lacks output_0\.pb"):
        verify_recorded(clean_bundle.model_path, tmp_path)
    with pytest.raises(BundleError, match="is not a folder"):
        verify_recorded(clean_bundle.model_path, tmp_path / "nowhere")
