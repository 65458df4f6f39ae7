import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dlzoo.errors import BundleError
from dlzoo.runtime.bundle.bundle import Bundle, write_manifest, write_parity
from dlzoo.runtime.bundle.golden_set import (
    GoldenSet,
    NoiseFloor,
    read_golden_set,
    read_test_data_set,
    write_golden_set,
)
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec

X = TensorSpec(name="x", dtype="float32", dims=("batch", 3))
Y = TensorSpec(name="y", dtype="float32", dims=("batch", 3))


def make_golden(name: str = "test_data_set_0", *, batch: int = 2) -> GoldenSet:
    rng = np.random.default_rng(batch)
    x = rng.standard_normal((batch, 3)).astype(np.float32)
    reference = np.maximum(x.astype(np.float64), 0) + 1e-9
    return GoldenSet(
        name=name,
        kind="normal x1",
        inputs={"x": x},
        reference={"y": reference},
        noise={"y": NoiseFloor(1.25e-8, 3e-8)},
    )


def fill_bundle(folder: Path) -> Manifest:
    """Write a small bundle: one Relu, two golden sets."""
    folder.mkdir(exist_ok=True)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, folder / "model.onnx")
    for number, batch in enumerate((1, 2)):
        golden = make_golden(f"test_data_set_{number}", batch=batch)
        write_golden_set(folder / "golden", golden, "float32")
    return write_manifest(
        folder,
        Manifest(
            name="relu",
            card={},
            opset=20,
            ir_version=10,
            inputs=(X,),
            outputs=(Y,),
            dynamic_axes={"batch": AxisRange(symbol="batch", min=1, max=None, proved=(1, 2))},
            preprocessing=None,
            preprocessing_included=False,
            head="logits",
            labels=("a", "b", "c"),
            lowering=(),
            precision="float32",
            rho2_limit=3.0,
            rhomax_limit=6.0,
            limit_reason="",
            tools={},
            weights={"kind": "random", "seed": 0, "source": None, "sha256": "0" * 64},
            files={},
        ),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill_bundle(tmp_path / "relu")
    return tmp_path / "relu"


def test_a_bundle_opens(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.manifest.name == "relu"
    assert bundle.labels == ("a", "b", "c")
    assert bundle.model_path == folder / "model.onnx"
    assert bundle.header.opset == 20
    assert (bundle.header.inputs, bundle.header.outputs) == ((X,), (Y,))
    bundle.check_files()


def test_the_manifest_lists_every_file_but_what_is_written_about_them(folder: Path) -> None:
    for name in ("parity.json", "MODEL_CARD.md", "report.html"):
        (folder / name).write_text("{}")
    manifest = write_manifest(folder, Bundle.open(folder).manifest)
    data = [
        f"golden/test_data_set_{n}/{file}"
        for n in (0, 1)
        for file in ("input_0.pb", "noise_floor.json", "output_0.pb", "reference_0.npy")
    ]
    assert sorted(manifest.files) == sorted([*data, "model.onnx"])
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert manifest.files["model.onnx"] == digest


def test_writing_again_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    fill_bundle(tmp_path / "again")
    for path in folder.rglob("*"):
        if path.is_file():
            other = tmp_path / "again" / path.relative_to(folder)
            assert path.read_bytes() == other.read_bytes(), path.name


def test_golden_sets_come_back_in_order(folder: Path) -> None:
    write_golden_set(folder / "golden", make_golden("test_data_set_10", batch=3), "float32")
    sets = Bundle.open(folder).golden_sets()
    assert [s.name for s in sets] == ["test_data_set_0", "test_data_set_1", "test_data_set_10"]
    assert [s.batch for s in sets] == [1, 2, 3]
    expected = make_golden(batch=2)
    np.testing.assert_array_equal(sets[1].inputs["x"], expected.inputs["x"], strict=True)
    np.testing.assert_array_equal(sets[1].reference["y"], expected.reference["y"], strict=True)
    assert sets[1].noise == expected.noise and sets[1].kind == "normal x1"


def test_golden_data_are_onnx_test_data(folder: Path) -> None:
    place = folder / "golden" / "test_data_set_1"
    read = {
        name: numpy_helper.to_array(onnx.load_tensor(str(place / name)))
        for name in ("input_0.pb", "output_0.pb")
    }
    golden = make_golden(batch=2)
    np.testing.assert_array_equal(read["input_0.pb"], golden.inputs["x"], strict=True)
    rounded = golden.reference["y"].astype(np.float32)
    np.testing.assert_array_equal(read["output_0.pb"], rounded, strict=True)


def test_non_finite_and_overflowing_references_are_kept(tmp_path: Path) -> None:
    reference = np.array([[np.nan, np.inf, -np.inf, 1e300]])
    golden = GoldenSet(
        name="test_data_set_0",
        kind="NaN pixel",
        inputs={"x": np.full((1, 4), np.nan, np.float32)},
        reference={"y": reference},
        noise={"y": NoiseFloor(0.0, 0.0)},
    )
    write_golden_set(tmp_path, golden, "float32")
    np.testing.assert_array_equal(
        read_golden_set(tmp_path / "test_data_set_0").reference["y"], reference
    )
    _, outputs = read_test_data_set(tmp_path / "test_data_set_0")
    np.testing.assert_array_equal(
        outputs[0][1], np.float32([[np.nan, np.inf, -np.inf, np.inf]])
    )


@pytest.mark.parametrize("values", [(np.nan, 1.0), (1.0, np.inf), (-1.0, 1.0)])
def test_a_noise_floor_that_lets_everything_pass_is_refused(
    values: tuple[float, float],
) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        NoiseFloor(*values)


@pytest.mark.parametrize("name", ["model.onnx", "golden/test_data_set_1/reference_0.npy"])
def test_a_changed_file_is_named(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(
        BundleError, match=rf"{name} was changed: its sha256 is .*Copy the whole"
    ):
        Bundle.open(folder).check_files()


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "golden" / "test_data_set_0" / "input_0.pb").unlink()
    with pytest.raises(BundleError, match=r"test_data_set_0/input_0\.pb is missing\. Copy"):
        Bundle.open(folder).check_files()


@pytest.mark.parametrize("name", ["golden/test_data_set_9/input_0.pb", "model.onnx.data"])
def test_a_file_that_nobody_listed_is_named(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(
        BundleError, match=rf"{name} is not listed in manifest\.json\. Remove it"
    ):
        Bundle.open(folder).check_files()


def test_a_model_that_the_manifest_leaves_out_is_named(folder: Path) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    del document["files"]["model.onnx"]
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"model\.onnx is not listed"):
        Bundle.open(folder).check_files()


def test_notes_of_others_beside_the_model_are_let_be(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    Bundle.open(folder).check_files()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (f / "manifest.json").unlink(),
            "is not a bundle: expected a folder with manif",
        ),
        (
            lambda f: os.rename(f, f.with_name("b")),
            "does not exist: expected a folder with manif",
        ),
        (
            lambda f: (f / "model.onnx").unlink(),
            r"lacks model\.onnx\. Export the bundle again",
        ),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"), "is not a bundle"),
        (lambda f: (f / "manifest.json").write_text("{"), r"relu: manifest\.json is not JSON"),
    ],
)
def test_what_is_no_bundle_is_said_in_one_line(
    folder: Path, change: Any, message: str
) -> None:
    change(folder)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(folder)
    assert "\n" not in str(caught.value)


def test_a_bundle_without_golden_data_is_refused(folder: Path) -> None:
    (folder / "golden").rename(folder / "silver")
    with pytest.raises(BundleError, match="holds no golden data, so nothing can be proved"):
        Bundle.open(folder).golden_sets()


def test_parity_comes_back_and_is_stable(folder: Path) -> None:
    write_parity(folder, {"verdict": "pass", "candidates": []})
    text = (folder / "parity.json").read_text()
    assert text.index("candidates") < text.index("verdict") and text.endswith("}\n")
    assert Bundle.open(folder).parity() == {"verdict": "pass", "candidates": []}


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_a_bundle_without_parity_was_never_proved(folder: Path, text: str | None) -> None:
    if text is not None:
        (folder / "parity.json").write_text(text)
    with pytest.raises(BundleError, match=r"no readable parity\.json: it was never proved"):
        Bundle.open(folder).parity()


def damage_noise(place: Path, **changes: Any) -> None:
    document = json.loads((place / "noise_floor.json").read_text())
    document["outputs"][0].update(changes)
    (place / "noise_floor.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "reference_0.npy").unlink(), "cannot be read: No such file"),
        (lambda p: (p / "reference_0.npy").write_bytes(b"junk"), "cannot be read"),
        (lambda p: np.save(p / "reference_0.npy", np.zeros(3)), r"is float64 \[3\], expected"),
        (lambda p: np.save(p / "reference_0.npy", np.zeros((1, 3), "f4")), "is float32"),
        (lambda p: np.save(p / "reference_0.npy", np.array([{}])), "cannot be read.*pickle"),
        (lambda p: (p / "noise_floor.json").write_text("{}"), "it lacks 'kind'"),
        (lambda p: damage_noise(p, name="z"), "its outputs are not those of"),
        (lambda p: damage_noise(p, rms=float("nan")), "finite and not negative"),
        (lambda p: damage_noise(p, max=float("inf")), "finite and not negative"),
        (lambda p: damage_noise(p, rms="much"), "cannot be read"),
        (lambda p: (p / "input_0.pb").rename(p / "input_1.pb"), r"lacks input_0\.pb"),
        (lambda p: (p / "output_0.pb").unlink(), r"lacks output_0\.pb"),
        (
            lambda p: (p / "output_0.pb").write_bytes(b"\xff"),
            r"test_data_set_0/output_0\.pb: ",
        ),
    ],
)
def test_damaged_golden_data_are_said_in_one_line(
    folder: Path, damage: Any, message: str
) -> None:
    place = folder / "golden" / "test_data_set_0"
    damage(place)
    with pytest.raises(BundleError, match=message) as caught:
        read_golden_set(place)
    assert "\n" not in str(caught.value)


def test_test_data_of_others_are_read(tmp_path: Path) -> None:
    arrays = [np.arange(3, dtype=np.int64), np.ones((2, 2), np.float32)]
    for i, array in enumerate(arrays):
        onnx.save_tensor(numpy_helper.from_array(array, f"in{i}"), tmp_path / f"input_{i}.pb")
    onnx.save_tensor(numpy_helper.from_array(arrays[1], ""), tmp_path / "output_0.pb")
    (tmp_path / "notes.txt").write_text("x")
    inputs, outputs = read_test_data_set(tmp_path)
    assert [name for name, _ in inputs] == ["in0", "in1"]
    assert [name for name, _ in outputs] == [""]
    np.testing.assert_array_equal(inputs[0][1], arrays[0], strict=True)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"cannot be read as a folder of test data.*Give a folder"
    ):
        read_test_data_set(tmp_path / "nowhere")
