"""Triton's repository as written, and the problems found in edited files."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from dlzoo.errors import ExportError
from dlzoo.runtime.bundle.bundle import Bundle, write_manifest
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.deploy.deployment import TARGETS, check_deployment, deploy_bundle
from dlzoo.runtime.deploy.options import DeployOptions
from dlzoo.runtime.deploy.triton_config import DATA_TYPES, expected_dims
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from tests.support.small_bundle import NUM_CLASSES, small_bundle


def problems_of(folder: Path) -> list[str]:
    return [str(problem) for problem in check_deployment(folder).problems]


def config_of(folder: Path, model: str = "small") -> model_config_pb2.ModelConfig:
    text = (folder / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def edit(folder: Path, old: str, new: str, model: str = "small", count: int = 1) -> None:
    path = folder / model / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_the_configuration_says_what_the_graph_is(deployed, bundle: Bundle) -> None:
    folder = deployed("triton", max_batch_size=16)
    config = config_of(folder)
    assert (config.name, config.backend, config.platform) == (
        "small",
        "onnxruntime",
        "onnxruntime_onnx",
    )
    (x,), (y,) = config.input, config.output
    assert (x.name, x.data_type, list(x.dims)) == (
        "image",
        model_config_pb2.TYPE_FP32,
        [3, 8, 8],
    )
    assert (y.name, y.data_type, list(y.dims)) == ("logits", model_config_pb2.TYPE_FP32, [5])
    assert config.max_batch_size == 16 and config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 1
    assert [group.kind for group in config.instance_group] == [
        model_config_pb2.ModelInstanceGroup.KIND_CPU
    ]
    assert [warmup.batch_size for warmup in config.model_warmup] == [1, 16]
    labels = (folder / "small" / y.label_filename).read_text().splitlines()
    assert labels == list(bundle.manifest.labels or ())
    assert (folder / "small/1/model.onnx").read_bytes() == bundle.model_path.read_bytes()


@pytest.mark.parametrize("target", list(TARGETS))
def test_the_same_bundle_gives_the_same_bytes(
    deployed, tmp_path: Path, bundle: Bundle, target: str
) -> None:
    first, again = deployed(target), tmp_path / "again"
    deploy_bundle(bundle, target, again, options=DeployOptions())
    contents = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (first, again)
    ]
    assert contents[0] == contents[1] and len(contents[0]) > 2


def test_a_fixed_batch_is_offered_whole(deployed, tmp_path: Path) -> None:
    folder = deployed("triton", small_bundle(tmp_path / "fixed", batch=2))
    config = config_of(folder)
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [2, 3, 8, 8]
    assert list(config.output[0].dims) == [2, NUM_CLASSES]
    assert list(config_of(folder, "small_preprocess").input[0].dims) == [2]


def test_the_batch_stays_within_the_graphs_own_bound(deployed, tmp_path: Path) -> None:
    axes = {"batch": AxisRange(symbol="batch", min=1, max=4, proved=(1, 2, 3))}
    folder = deployed("triton", small_bundle(tmp_path / "narrow", dynamic_axes=axes))
    assert config_of(folder).max_batch_size == 4
    edit(folder, "max_batch_size: 4", "max_batch_size: 8")
    assert "small/config.pbtxt: max_batch_size is 8, the graph takes at most 4" in problems_of(
        folder
    )


@pytest.mark.parametrize(
    ("provider", "field", "names"),
    [
        ("openvino", "cpu_execution_accelerator", ["openvino"]),
        ("cuda", "gpu_execution_accelerator", ["cuda"]),
        ("tensorrt", "gpu_execution_accelerator", ["tensorrt", "cuda"]),
    ],
)
def test_accelerators(deployed, provider: str, field: str, names: list[str]) -> None:
    config = config_of(deployed("triton", provider=provider))
    accelerators = getattr(config.optimization.execution_accelerators, field)
    assert [accelerator.name for accelerator in accelerators] == names
    is_gpu = config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert is_gpu == field.startswith("gpu")
    if is_gpu:  # as in the proof
        assert accelerators[-1].parameters["use_tf32"] == "0"


def test_the_library_of_kernels_is_copied(
    deployed, tmp_path: Path, native_library: Path
) -> None:
    which = small_bundle(tmp_path / "custom", custom_op=True)
    folder = deployed("triton", which, native_library=native_library)
    name = native_library.name
    config = config_of(folder)
    assert list(config.model_operations.op_library_filename) == [f"/models/small/1/{name}"]
    copied = folder / "small" / "1" / name
    assert copied.read_bytes() == native_library.read_bytes()
    copied.write_bytes(copied.read_bytes()[:3000])
    first, second = problems_of(folder)
    assert first.endswith(f"{name}: was changed: its sha256 is not the recorded one")
    assert "model_operations.op_library_filename names" in second and "cut off" in second


def test_an_operator_without_body_needs_its_library(deployed, tmp_path: Path) -> None:
    which = small_bundle(tmp_path / "custom", custom_op=True)
    folder = deployed("triton", which)
    graph = folder / "small" / "1" / "model.onnx"
    model = onnx.load(graph)
    del model.functions[:]
    onnx.save(model, graph)
    assert (
        "small/config.pbtxt: model_operations.op_library_filename is missing, and the graph has no "
        "body for dlzoo::Mish" in problems_of(folder)
    )


@pytest.mark.parametrize("target", list(TARGETS))
def test_what_could_not_run_is_not_deployed(
    tmp_path: Path, bundle: Bundle, target: str
) -> None:
    which = small_bundle(tmp_path / "custom", custom_op=True)
    model = onnx.load(which.model_path)
    del model.functions[:]
    onnx.save(model, which.model_path)
    write_manifest(which.path, which.manifest)
    with pytest.raises(ExportError, match=r"the graph has no body for dlzoo::Mish, and"):
        deploy_bundle(
            Bundle.open(which.path), target, tmp_path / "out", options=DeployOptions()
        )
    assert not (tmp_path / "out").exists()


EDITS = [
    ('name: "image"', 'name: "images"', "input 'image' is missing, the graph has ['image']"),
    (
        "data_type: TYPE_FP32",
        "data_type: TYPE_FP16",
        "input[0].data_type is TYPE_FP16, the graph",
    ),
    ("dims: 8", "dims: 9", "input[0].dims is [3, 9, 8], the graph has [3, 8, 8]"),
    ("dims: 5", "dims: 4", "output[0].dims is [4], the graph has [5]"),
    ("dims: 5", "dims: 4", "output[0].label_filename has 5 labels, the output has 4 scores"),
    ("max_batch_size: 32", "max_batch_size: -1", "max_batch_size is -1, expected 0 or more"),
    ("max_batch_size: 32", "", "dynamic_batching needs a max_batch_size above 0"),
    ("max_batch_size: 32", "max_batch: 32", 'has no field named "max_batch"'),
    ("kind: KIND_CPU", "kind: KIND_TPU", "has no value named KIND_TPU"),
    ("max_batch_size: 32", 'max_batch_size: "many"', "line 8, column 17, "),
    ('name: "small"', 'name: "other"', "name is 'other', expected the folder's, 'small'"),
    ("labels.txt", "names.txt", "output[0].label_filename names 'names.txt'"),
    ('backend: "onnxruntime"', 'backend: "tensorflow"', "backend is 'tensorflow', expected"),
    ("onnxruntime_onnx", "tensorrt_plan", "platform is 'tensorrt_plan', expected"),
    ('"model.onnx"', '"net.onnx"', "default_model_filename is 'net.onnx', expected"),
    (
        "batch_size: 1\n",
        "batch_size: 99\n",
        "model_warmup[0].batch_size is 99, max_batch_size",
    ),
    ('key: "image"', 'key: "x"', "model_warmup[0].inputs['x'] is not an input of the model"),
    ("count: 1", "count: -2", "instance_group[0].count is -2"),
    (
        "max_queue_delay_microseconds: 500",
        "preferred_batch_size: 64",
        "dynamic_batching.preferred_batch_size is 64, expected 1 to 32",
    ),
    (
        "dynamic_batching",
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "cuda" } } }\n'
        "dynamic_batching",
        "gpu_execution_accelerator is never used: every instance_group is KIND_CPU",
    ),
    (
        "dynamic_batching",
        'optimization { execution_accelerators { cpu_execution_accelerator { name: "dnnl" } } }\n'
        "dynamic_batching",
        "cpu_execution_accelerator.name is 'dnnl', expected openvino",
    ),
    (
        "latest {\n    num_versions: 1\n  }",
        "specific { versions: 3 }",
        "version_policy.specific.versions names 3: no folder",
    ),
]


@pytest.mark.parametrize(("old", "new", "problem"), EDITS, ids=[e[2][:40] for e in EDITS])
def test_an_edit_that_does_not_fit_is_named(
    deployed, old: str, new: str, problem: str
) -> None:
    folder = deployed("triton")
    edit(folder, old, new)
    found = problems_of(folder)
    assert any(
        line.startswith("small/config.pbtxt: ") and problem in line for line in found
    ), found


ENSEMBLE_EDITS = [
    ("small_preprocess", "gone", "step[0].model_name is 'gone': no such model"),
    (
        'value: "pixels"',
        'value: "x"',
        "step[1].input_map takes 'pixels', which no earlier step",
    ),
    (
        'key: "image"',
        'key: "file"',
        "step[0].input_map names 'file', which is not an input of small_prep",
    ),
    (
        'key: "logits"',
        'key: "y"',
        "step[1].output_map names 'y', which is not an output of small",
    ),
    ("TYPE_FP32", "TYPE_FP64", "output[0] has a data_type different from that of small"),
    ("dims: 5", "dims: 6", "output[0] has dims [6], not the [5] of small"),
    (
        "max_batch_size: 32",
        "max_batch_size: 64",
        "max_batch_size is 64, that of small_preproc",
    ),
    (
        'platform: "ensemble"',
        'platform: "python"',
        "platform is 'python', expected 'ensemble'",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "problem"), ENSEMBLE_EDITS, ids=[e[2][:40] for e in ENSEMBLE_EDITS]
)
def test_an_ensemble_that_does_not_fit_is_named(
    deployed, old: str, new: str, problem: str
) -> None:
    folder = deployed("triton")
    edit(folder, old, new, "small_from_image")
    assert any(problem in line for line in problems_of(folder)), problems_of(folder)


def test_edits_that_make_sense_pass(deployed) -> None:
    folder = deployed("triton")
    edit(folder, "count: 1", "count: 4")
    edit(folder, "max_queue_delay_microseconds: 500", "preferred_batch_size: [8, 16]")
    edit(folder, "dims: 3\n  dims: 8\n  dims: 8", "dims: [3, 8, 8]  # as people write it")
    assert problems_of(folder) == []


def test_data_that_changed_are_found(deployed) -> None:
    folder = deployed("triton")
    with (folder / "small/1/model.onnx").open("ab") as file:
        file.write(b"\x00\x00")
    (folder / "small" / "labels.txt").unlink()
    (folder / "small" / "2.txt").write_text("stray")
    (folder / "small_preprocess" / "1" / "dlzoo" / "image_file.py").write_text("")
    found = [line for line in problems_of(folder) if "config.pbtxt" not in line]
    assert found == [
        "small/1/model.onnx: was changed: its sha256 is not the recorded one",
        "small/2.txt: is not listed in deployment.json",
        "small/labels.txt: is missing",
        "small_preprocess/1/dlzoo/image_file.py: was changed: its sha256 is not the recorded one",
    ]


def test_triton_has_every_dtype_of_ours() -> None:
    assert set(DATA_TYPES.values()) | {"TYPE_INVALID"} == set(model_config_pb2.DataType.keys())


def test_a_number_for_each_sample_is_reshaped() -> None:
    spec = TensorSpec(name="loss", dtype="float32", dims=("batch",))
    assert expected_dims(spec, 8) == ([1], [])
    assert expected_dims(spec, 0) == ([-1], None)


def test_the_images_step_gives_the_pixels_of_the_proof(
    deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code runs here as it does inside Triton, but for Triton's own module."""
    import json
    import subprocess
    import sys

    import skimage

    folder = deployed("triton")
    version = folder / "small_preprocess" / "1"
    photo = Path(skimage.__file__).parent / "data" / "chelsea.png"
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "import dlzoo; assert dlzoo.__file__.startswith(sys.argv[1]), dlzoo.__file__\n"
        "from dlzoo.runtime.images.preprocess import tensor_from_image\n"
        "import numpy as np\n"
        "settings = json.load(open(sys.argv[1] + '/preprocessing.json'))\n"
        "data = open(sys.argv[2], 'rb').read()\n"
        "np.save(sys.argv[3], tensor_from_image(data, settings['preprocessing']))\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)\n"
    )
    out = folder.parent / "x.npy"
    subprocess.run([sys.executable, "-c", code, version, photo, out], check=True)
    from dlzoo.runtime.images.preprocess import tensor_from_image

    preprocessing = json.loads((version / "preprocessing.json").read_text())["preprocessing"]
    np.testing.assert_array_equal(np.load(out), tensor_from_image(photo, preprocessing))
