"""Sessions run where they were told to, and whatever is wrong with a file is one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from dlzoo.errors import ArgumentError, BundleError, DlzooError, ProviderError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.session.installation import check_installation
from dlzoo.runtime.session.providers import available_providers
from dlzoo.runtime.session.run_settings import OPTIMIZATIONS
from dlzoo.runtime.session.session import open_session

BAD = Path(__file__).parents[2] / "onnx"
#: A provider that is built into the CPU package, and takes no node of an ordinary model.
TAKES_NOTHING = "AzureExecutionProvider"


def save_node(path: Path, node: onnx.NodeProto, **model: object) -> Path:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    facts = {"opset_imports": [helper.make_opsetid("", 20)], "ir_version": 10, **model}
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y]), **facts), path)
    return path


def relu(path: Path) -> Path:
    return save_node(path, helper.make_node("Relu", ["x"], ["y"]))


@pytest.mark.parametrize("optimization", OPTIMIZATIONS)
def test_every_optimization_level_opens_and_runs(
    clean_bundle: Bundle, optimization: str, golden_sets: list[GoldenSet]
) -> None:
    session = open_session(clean_bundle, "cpu", optimization=optimization)
    assert (session.provider, session.optimization) == ("cpu", optimization)
    outputs = session.run(golden_sets[1].inputs)
    np.testing.assert_allclose(
        outputs["logits"], golden_sets[1].reference["logits"], rtol=1e-4, atol=1e-6
    )


def test_a_bundle_its_folder_and_its_file_are_the_same(clean_bundle: Bundle) -> None:
    for model in (
        clean_bundle,
        clean_bundle.path,
        str(clean_bundle.path),
        clean_bundle.model_path,
    ):
        session = open_session(model)
        assert session.path == clean_bundle.model_path
        assert session.input_names == ("image",) and session.output_names == ("logits",)
        assert session.header.opset == 20


def test_every_node_is_counted_where_it_runs(clean_bundle: Bundle) -> None:
    session = open_session(clean_bundle, "cpu", optimization="disabled")
    assert session.node_providers == {"cpu": 7} and session.cpu_ops == {}


def test_the_number_of_threads_is_taken(clean_bundle: Bundle) -> None:
    session = open_session(clean_bundle, num_threads=1)
    assert session._session.get_session_options().intra_op_num_threads == 1


# --- where it runs -------------------------------------------------------------------------


def test_a_provider_that_takes_nothing_is_refused(clean_bundle: Bundle) -> None:
    with pytest.raises(ProviderError) as caught:
        open_session(clean_bundle, TAKES_NOTHING, optimization="disabled")
    assert str(caught.value) == (
        f"Provider '{TAKES_NOTHING}' was asked for, but 7 of 7 nodes of model.onnx would run on "
        "cpu: Conv (2), Gemm (1), MaxPool (1), ReduceMean (1), Relu (2). Export with another "
        "opset, or give `allow_fallback=True`."
    )


def test_shape_operators_alone_do_not_count_as_work_done(tmp_path: Path) -> None:
    path = save_node(tmp_path / "m.onnx", helper.make_node("Add", ["x", "x"], ["y"]))
    with pytest.raises(
        ProviderError, match=r"1 of 1 nodes of m\.onnx would run on cpu: Add \(1\)"
    ):
        open_session(path, TAKES_NOTHING)


def test_allow_fallback_takes_it_as_it_comes_and_says_how(clean_bundle: Bundle) -> None:
    session = open_session(
        clean_bundle, TAKES_NOTHING, optimization="disabled", allow_fallback=True
    )
    assert session.provider == TAKES_NOTHING
    assert session.node_providers == {"cpu": 7}
    assert session.cpu_ops["Conv"] == 2


def test_a_provider_that_is_not_built_in_says_how_to_get_it(clean_bundle: Bundle) -> None:
    absent = "openvino"  # onnxruntime-openvino is in none of our installations
    with pytest.raises(ProviderError) as caught:
        open_session(clean_bundle, absent)
    installed = check_installation()
    said = str(caught.value)
    assert said.startswith(
        f"Provider '{absent}' is not in the installed {installed}, which has "
    )
    assert said.endswith(
        f'run: pip uninstall -y {installed} && pip install "onnxruntime-openvino"'
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has Core ML")
def test_a_provider_of_another_system_is_said_to_be_that(clean_bundle: Bundle) -> None:
    if check_installation() != "onnxruntime":
        pytest.skip("Core ML comes with the package onnxruntime")
    with pytest.raises(ProviderError, match=r"It is not built for this system: choose one of"):
        open_session(clean_bundle, "coreml")


def test_an_unknown_provider_lists_all(clean_bundle: Bundle) -> None:
    with pytest.raises(ArgumentError) as caught:
        open_session(clean_bundle, "cude")
    assert str(caught.value) == (
        "No provider is named 'cude'. Did you mean 'cuda'? The names are cpu, cuda, tensorrt, "
        "openvino, dml, coreml, migraphx, rocm."
    )


def test_an_unknown_optimization_level_lists_all(clean_bundle: Bundle) -> None:
    with pytest.raises(
        ArgumentError, match="'max', expected one of disabled, basic, extended, all"
    ):
        open_session(clean_bundle, optimization="max")


@pytest.mark.gpu
def test_cuda_takes_every_node_and_keeps_float32(
    clean_bundle: Bundle, golden_sets: list[GoldenSet]
) -> None:
    if "cuda" not in available_providers():
        pytest.skip("the installed onnxruntime has no CUDA provider")
    session = open_session(clean_bundle, "cuda")
    assert session.node_providers.keys() == {"cuda"}
    options = session._session.get_provider_options()["CUDAExecutionProvider"]
    assert options["use_tf32"] == "0"
    got = session.run(golden_sets[1].inputs)["logits"]
    np.testing.assert_allclose(got, golden_sets[1].reference["logits"], rtol=1e-5, atol=1e-6)


# --- running -------------------------------------------------------------------------------


def test_inputs_of_other_names_are_refused(clean_bundle: Bundle) -> None:
    x = np.zeros((1, 3, 12, 12), np.float32)
    with pytest.raises(
        ArgumentError, match=r"got inputs \['x'\], expected \['image'\]\. Give"
    ):
        open_session(clean_bundle).run({"x": x})


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, 3, 12, 13), "float32", "Got: 13 Expected: 12"),
        ((3, 12, 12), "float32", "Invalid rank for input: image"),
        ((1, 3, 12, 12), "float64", "Unexpected input data type"),
    ],
)
def test_inputs_of_another_shape_or_dtype_are_refused(
    clean_bundle: Bundle, shape: tuple[int, ...], dtype: str, said: str
) -> None:
    with pytest.raises(ArgumentError, match=said) as caught:
        open_session(clean_bundle).run({"image": np.zeros(shape, dtype)})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.onnx does not take these inputs: ")


def test_an_array_in_any_memory_order_is_taken(clean_bundle: Bundle) -> None:
    x_NHWC = np.random.default_rng(0).standard_normal((2, 12, 12, 3)).astype(np.float32)
    x_NCHW = x_NHWC.transpose(0, 3, 1, 2)
    session = open_session(clean_bundle)
    np.testing.assert_array_equal(
        session.run({"image": x_NCHW})["logits"],
        session.run({"image": x_NCHW.copy()})["logits"],
    )


def test_a_scalar_input_stays_a_scalar(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, tmp_path / "m.onnx")
    output = open_session(tmp_path / "m.onnx").run({"x": np.array(2.0, np.float32)})["y"]
    assert output.shape == () and output == 2


def test_a_model_that_breaks_while_running_is_one_line(tmp_path: Path) -> None:
    path = save_node(tmp_path / "m.onnx", helper.make_node("Reshape", ["x", "s"], ["y"]))
    model = onnx.load(path)
    model.graph.initializer.append(
        helper.make_tensor("s", onnx.TensorProto.INT64, [2], [2, 2])
    )
    onnx.save(model, path)
    session = open_session(path)
    assert session.run({"x": np.zeros((1, 4), np.float32)})["y"].shape == (2, 2)
    with pytest.raises(BundleError) as caught:
        session.run({"x": np.zeros((3, 4), np.float32)})
    said = str(caught.value)
    assert said.startswith("m.onnx cannot be run on these inputs: Non-zero status code")
    assert "\n" not in said and "/onnxruntime" not in said
    assert said.endswith("Export it again with the sizes that you need.")


# --- files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(BAD.glob("bad_*.onnx")), ids=lambda p: p.stem)
def test_a_bad_file_is_one_line(path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        open_session(path)
    said = str(caught.value)
    assert str(path) in said and "\n" not in said and len(said) < 600
    assert "/onnxruntime_src/" not in said


def test_there_are_bad_files() -> None:
    assert len(list(BAD.glob("bad_*.onnx"))) >= 12


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"opset_imports": [helper.make_opsetid("", 999)]},
            "is not understood by ONNX Runtime",
        ),
        ({"ir_version": 999}, "Unsupported model IR version: 999"),
    ],
)
def test_a_model_from_the_future_is_one_line(
    tmp_path: Path, facts: dict[str, object], said: str
) -> None:
    path = save_node(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"]), **facts)
    with pytest.raises(BundleError, match=said) as caught:
        open_session(path)
    assert str(caught.value).endswith("Export it again, or update onnxruntime.")


def test_a_folder_that_is_no_bundle_and_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        open_session(tmp_path)
    with pytest.raises(BundleError, match="cannot be opened: No such file"):
        open_session(tmp_path / "nowhere.onnx")


def test_nothing_is_printed_whatever_goes_wrong(tmp_path: Path, clean_bundle: Bundle) -> None:
    """ONNX Runtime's C++ log and its Python fallback print; here errors are exceptions only."""
    relu(tmp_path / "m.onnx")
    code = """
import sys
import numpy as np
from pathlib import Path
from dlzoo.errors import DlzooError
from dlzoo.runtime.session.session import open_session
bad, bundle = sys.argv[1:]
for path in [*Path(bad).glob("bad_*.onnx"), Path(bundle)]:
    for provider in ("cpu", "AzureExecutionProvider"):
        try:
            open_session(path, provider).run({"image": np.zeros((1, 3, 13, 12), np.float32)})
        except DlzooError:
            continue
        raise SystemExit(f"{path} on {provider}: no error")
"""
    run = [sys.executable, "-c", code, str(BAD), str(clean_bundle.path)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_error_is_one_of_ours(tmp_path: Path) -> None:
    """A session of a damaged model opens, or says why in one line; it never takes the process along."""
    whole = relu(tmp_path / "m.onnx").read_bytes()
    draw = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    for _ in range(150):
        data = bytearray(whole)
        data[draw.integers(len(data))] = draw.integers(256)
        path.write_bytes(data)
        try:
            open_session(path)
        except DlzooError as error:
            assert "\n" not in str(error)
