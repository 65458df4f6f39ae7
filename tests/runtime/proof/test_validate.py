"""A sound bundle passes everywhere, and whatever is changed in it fails."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dlzoo.errors import BundleError, ProviderError
from dlzoo.runtime.bundle.bundle import Bundle, write_parity
from dlzoo.runtime.bundle.golden_set import GoldenSet, NoiseFloor
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS
from dlzoo.runtime.proof.report import Power
from dlzoo.runtime.proof.validate import verify_bundle, verify_model
from dlzoo.runtime.session.run_settings import OPTIMIZATIONS
from tests.support.recorded_progress import RecordedProgress

ChangeBundle = Callable[..., Bundle]
Edit = Callable[[onnx.ModelProto], None]


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def attribute(model: onnx.ModelProto, name: str, **changes: Any) -> None:
    """Set attributes of a node."""
    kept = [a for a in node(model, name).attribute if a.name not in changes]
    del node(model, name).attribute[:]
    kept += [helper.make_attribute(key, value) for key, value in changes.items()]
    node(model, name).attribute.extend(kept)


def weight(model: onnx.ModelProto, name: str, change: Callable[[Any], Any]) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def set_one(array: Any, value: float) -> Any:
    array.flat[0] = value
    return array


# --- what passes ---------------------------------------------------------------------------


def test_a_sound_bundle_passes_at_every_level(clean_bundle: Bundle) -> None:
    progress = RecordedProgress()
    report = verify_bundle(clean_bundle, optimizations=tuple(OPTIMIZATIONS), progress=progress)
    assert report and report.verdict == "pass" and report.explanation == ""
    assert len(report.candidates) == 7 * len(OPTIMIZATIONS)
    assert {c.optimization for c in report.candidates} == set(OPTIMIZATIONS)
    assert {c.batch for c in report.candidates} == {1, 2, 5}
    numbers = [c.rho2 for c in report.candidates if c.rho2 is not None]
    assert 0 < max(numbers) <= 3
    assert report.dynamic_axes == {"batch": {"min": 1, "max": None, "proved": [1, 2, 5]}}
    assert report.power == Power(detected=6, tried=6, sampled_of=6)
    assert report.opset == 20 and report.bundle == "small"
    assert list(report.seconds) == ["hashes", "open", "run"]
    assert "run: cpu, optimization basic, batch 5, normal x50" in progress.stages
    assert json.loads(json.dumps(report.to_json(), allow_nan=False)) == report.to_json()


def test_one_session_serves_all_golden_sets_of_a_way_to_run(clean_bundle: Bundle) -> None:
    progress = RecordedProgress()
    verify_bundle(clean_bundle, optimizations=("disabled", "all"), progress=progress)
    assert sum(stage.startswith("open") for stage in progress.stages) == 2


def test_what_happens_to_nan_is_a_note_and_decides_only_when_asked(tmp_path: Path) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    x_info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1, 4, 4])
    y_info = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 2, 2])
    graph = helper.make_graph([pool], "g", [x_info], [y_info])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, tmp_path / "pool.onnx")
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    x[0, 0, 0, 0] = np.nan
    golden = GoldenSet(
        name="test_data_set_0",
        kind="NaN pixel",
        inputs={"x": x},
        reference={"y": np.array([[[[np.nan, 7.0], [13.0, 15.0]]]])},
        noise={"y": NoiseFloor(0.0, 0.0)},
    )
    finite = replace(
        golden,
        name="test_data_set_1",
        inputs={"x": np.nan_to_num(x)},
        reference={"y": np.array([[[[5.0, 7.0], [13.0, 15.0]]]])},
    )
    for wrong in (np.nan, np.inf):
        special = replace(golden, reference={"y": np.array([[[[wrong, 7.0], [13.0, 15.0]]]])})
        report = verify_model(tmp_path / "pool.onnx", [finite, special], limits=DEFAULT_LIMITS)
        assert report and report.candidates[1].rho2 is None
        assert "finite, NaN or Inf where they should not be" in report.candidates[1].notes[0]
        strict = verify_model(
            tmp_path / "pool.onnx",
            [finite, special],
            limits=DEFAULT_LIMITS,
            strict_special_values=True,
        )
        assert strict.verdict == "fail" and strict.candidates[0].verdict == "pass"
    lost = replace(finite, reference={"y": np.array([[[[5.0, 7.0], [13.0, np.inf]]]])})
    assert (
        verify_model(tmp_path / "pool.onnx", [lost], limits=DEFAULT_LIMITS).verdict == "fail"
    )


def test_verifying_twice_gives_the_same_numbers(clean_bundle: Bundle) -> None:
    assert verify_bundle(clean_bundle).to_parity() == verify_bundle(clean_bundle).to_parity()


def test_it_runs_without_torch_and_onnx(clean_bundle: Bundle) -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["onnx"] = None  # importing them raises
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.proof.validate import verify_bundle
from pathlib import Path
print(verify_bundle(Bundle.open(Path(sys.argv[1]))).verdict)
"""
    run = [sys.executable, "-c", code, str(clean_bundle.path)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("pass\n", "")


# --- what fails: one change each -----------------------------------------------------------

CHANGES: dict[str, Edit] = {
    "a weight row swapped": lambda m: weight(
        m, "fc.weight", lambda w: w[[1, 0, *range(2, 10)]]
    ),
    "one weight off by 1 %": lambda m: weight(
        m, "fc.weight", lambda w: set_one(w, w.flat[0] * 1.01)
    ),
    "a tensor off by 0.001 %": lambda m: weight(m, "conv1.weight", lambda w: w * 1.00001),
    "a bias dropped": lambda m: weight(m, "conv2.bias", lambda w: w * 0),
    "a kernel transposed": lambda m: weight(
        m, "conv1.weight", lambda w: w.transpose(0, 1, 3, 2)
    ),
    "channels in another order": lambda m: weight(m, "conv1.weight", lambda w: w[:, ::-1]),
    "a NaN weight": lambda m: weight(m, "conv2.weight", lambda w: set_one(w, np.nan)),
    "an Inf weight": lambda m: weight(m, "fc.bias", lambda w: set_one(w, np.inf)),
    "half precision weights": lambda m: weight(
        m, "conv1.weight", lambda w: w.astype(np.float16).astype(np.float32)
    ),
    "a pad moved": lambda m: attribute(m, "conv1", pads=[2, 1, 0, 1]),
    "a pool's window": lambda m: attribute(m, "pool", kernel_shape=[1, 1]),
    "another activation": lambda m: setattr(node(m, "relu2"), "op_type", "Sigmoid"),
    "an activation left out": lambda m: setattr(node(m, "relu1"), "op_type", "Identity"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("optimization", ["disabled", "all"])
def test_a_changed_model_fails(
    changed_bundle: ChangeBundle, name: str, optimization: str
) -> None:
    report = verify_bundle(
        changed_bundle(CHANGES[name]),
        optimizations=(optimization,),
        power=Power(detected=6, tried=6, sampled_of=6),
    )
    assert report.verdict == "fail"
    assert report.explanation and "\n" not in report.explanation


def bake_batch(model: onnx.ModelProto) -> None:
    """What an exporter does that traces with a batch of one: a Reshape to [1, 32]."""
    model.graph.initializer.append(
        helper.make_tensor("s", onnx.TensorProto.INT64, [2], [1, 32])
    )
    node(model, "fc").input[0] = "baked"
    fc = list(model.graph.node).index(node(model, "fc"))
    model.graph.node.insert(fc, helper.make_node("Reshape", ["f", "s"], ["baked"], name="r"))


def test_a_baked_batch_fails_at_the_other_batches(changed_bundle: ChangeBundle) -> None:
    report = verify_bundle(
        changed_bundle(bake_batch), power=Power(detected=6, tried=6, sampled_of=6)
    )
    verdicts = {c.batch: c.verdict for c in report.candidates}
    assert verdicts == {1: "pass", 2: "fail", 5: "fail"}
    failing = next(c for c in report.candidates if c.batch == 5)
    assert failing.rho2 is None and "cannot be run on these inputs" in failing.reasons[0]
    assert report.verdict == "fail"


def drop_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "e"
    model.graph.output[0].type.tensor_type.ClearField("shape")


def test_a_renamed_output_fails(changed_bundle: ChangeBundle) -> None:
    report = verify_bundle(
        changed_bundle(drop_output), power=Power(detected=6, tried=6, sampled_of=6)
    )
    assert report.verdict == "fail"
    assert "no output has a name that was expected" in report.candidates[0].reasons[0]
    assert (
        "the model has outputs e float32 [...], the manifest says logits" in report.reasons[0]
    )


POWER = Power(detected=6, tried=6, sampled_of=6)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"opset": 18}, "the model has opset 20, the manifest says 18"),
        (
            {"inputs": (TensorSpec(name="image", dtype="float32", dims=(1, 3, 12, 12)),)},
            "the model has inputs image float32 [batch, 3, 12, 12], the manifest says image",
        ),
        (
            {
                "dynamic_axes": {
                    "batch": AxisRange(symbol="batch", min=1, max=None, proved=(1, 7))
                }
            },
            "axis 'batch' is dynamic, and no golden data prove it at 7",
        ),
        (
            {"dynamic_axes": {"batch": AxisRange(symbol="batch", min=1, max=None, proved=())}},
            "axis 'batch' is dynamic, and no golden data prove it at any size",
        ),
    ],
)
def test_a_manifest_that_declares_what_is_not_so_fails(
    changed_bundle: ChangeBundle, declared: dict[str, Any], said: str
) -> None:
    report = verify_bundle(changed_bundle(**declared), power=POWER)
    assert report.verdict == "fail"
    assert any(said in reason for reason in report.reasons)


def test_a_changed_file_stops_before_anything_runs(changed_bundle: ChangeBundle) -> None:
    bundle = changed_bundle()
    with bundle.model_path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx was changed"):
        verify_bundle(bundle)


def test_a_provider_that_takes_nothing_is_no_verdict(clean_bundle: Bundle) -> None:
    with pytest.raises(ProviderError, match="would run on cpu"):
        verify_bundle(clean_bundle, providers=("AzureExecutionProvider",))


def test_an_unknown_precision_is_refused(changed_bundle: ChangeBundle) -> None:
    with pytest.raises(
        BundleError, match="precision 'int3', expected one of float64, float32"
    ):
        verify_bundle(changed_bundle(precision="int3"), power=POWER)


# --- power ---------------------------------------------------------------------------------


def test_without_power_the_verdict_is_vacuous(changed_bundle: ChangeBundle) -> None:
    bundle = changed_bundle()
    write_parity(bundle.path, {"power": None})
    report = verify_bundle(bundle)
    assert report.verdict == "vacuous" and not report
    assert "its power was never measured" in report.explanation


def test_weak_power_is_vacuous(changed_bundle: ChangeBundle) -> None:
    report = verify_bundle(changed_bundle(), power=Power(detected=1, tried=6, sampled_of=6))
    assert report.verdict == "vacuous"
    assert "only 1 of 6 weight tensors are visible in the outputs" in report.explanation


def test_a_bundle_that_was_never_proved_is_refused(changed_bundle: ChangeBundle) -> None:
    bundle = changed_bundle()
    (bundle.path / "parity.json").unlink()
    with pytest.raises(BundleError, match="it was never proved"):
        verify_bundle(bundle)


# --- other data, bare models ---------------------------------------------------------------


def test_other_golden_data_are_taken(
    clean_bundle: Bundle, golden_sets: list[GoldenSet]
) -> None:
    report = verify_bundle(clean_bundle, golden_sets=golden_sets[:1])
    assert report and len(report.candidates) == 1
    wrong = replace(
        golden_sets[0], reference={"logits": golden_sets[0].reference["logits"] + 1}
    )
    assert verify_bundle(clean_bundle, golden_sets=[wrong]).verdict == "fail"


def test_a_bare_model_is_compared_and_its_power_said_to_be_unknown(
    clean_bundle: Bundle, golden_sets: list[GoldenSet]
) -> None:
    report = verify_model(
        clean_bundle.model_path,
        golden_sets,
        limits=DEFAULT_LIMITS,
        notes=["by hand"],
    )
    assert report and report.power is None and report.bundle == "model.onnx"
    assert report.notes == ("by hand", "power was not measured")
    assert report.to_json()["power"] is None


def test_a_bare_model_without_data_is_vacuous(clean_bundle: Bundle) -> None:
    report = verify_model(clean_bundle.model_path, [], limits=DEFAULT_LIMITS)
    assert report.verdict == "vacuous" and report.explanation == "nothing was compared."


def test_sizes_at_which_float32_says_nothing_are_vacuous(clean_bundle: Bundle) -> None:
    sets = clean_bundle.golden_sets()
    noisy = [
        replace(golden, noise={name: NoiseFloor(1.0, 2.0, 5.0, 9.0) for name in golden.noise})
        if golden.batch == 2
        else golden
        for golden in sets
    ]
    report = verify_bundle(clean_bundle, golden_sets=noisy)
    assert report.verdict == "vacuous"
    assert "at inputs of size 2x3x12x12 float32's own error is 20.0% of output" in (
        report.explanation
    )
    other = [replace(golden, kind="another") for golden in sets if golden.batch == 2]
    assert verify_bundle(clean_bundle, golden_sets=[*noisy, *other])


def test_a_model_that_never_gives_a_finite_number_is_vacuous(
    tmp_path: Path, clean_bundle: Bundle
) -> None:
    x = np.full((1, 3, 12, 12), np.nan, np.float32)
    golden = GoldenSet(
        name="test_data_set_0",
        kind="NaN",
        inputs={"image": x},
        reference={"logits": np.full((1, 10), np.nan)},
        noise={"logits": NoiseFloor(0.0, 0.0)},
    )
    report = verify_model(clean_bundle.model_path, [golden], limits=DEFAULT_LIMITS)
    assert report.verdict == "vacuous"
    assert "no finite number was compared" in report.explanation


@pytest.mark.gpu
def test_a_sound_bundle_passes_on_cuda(clean_bundle: Bundle) -> None:
    from dlzoo.runtime.session.providers import available_providers

    if "cuda" not in available_providers():
        pytest.skip("the installed onnxruntime has no CUDA provider")
    report = verify_bundle(
        clean_bundle, providers=("cuda",), optimizations=tuple(OPTIMIZATIONS)
    )
    assert report, report.explanation


def test_a_copied_bundle_passes_under_any_name(clean_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(clean_bundle.path, tmp_path / "größe [1]")
    assert verify_bundle(Bundle.open(tmp_path / "größe [1]"))
