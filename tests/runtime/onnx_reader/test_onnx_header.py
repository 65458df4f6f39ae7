"""The header against the onnx package, and what a hostile or damaged file gets."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlzoo.errors import BundleError
from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
from dlzoo.runtime.onnx_reader.protobuf_wire import encode_bytes

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def value(name: str, *dims: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def save(path: Path, graph: onnx.GraphProto, **facts: object) -> Path:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10, **facts), path)
    return path


def relu(path: Path, *nodes: onnx.NodeProto, **graph: object) -> Path:
    first = helper.make_node("Relu", ["x"], ["y"])
    return save(
        path,
        helper.make_graph(
            [first, *nodes], "g", [value("x", "batch", 3, None)], [value("y")], **graph
        ),
    )


def external_tensor(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_symbols_and_unknown_sizes(tmp_path: Path) -> None:
    header = read_onnx_header(relu(tmp_path / "m.onnx"))
    assert header.inputs[0].dims == ("batch", 3, "?")
    assert header.outputs[0].dims == ()
    assert header.inputs[0].dtype == "float32"
    assert header.opset_imports == {"": 20, "com.microsoft": 1}
    assert (header.opset, header.ir_version) == (20, 10)


def test_an_output_without_a_shape(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", 1)], [y]
    )
    assert read_onnx_header(save(tmp_path / "m.onnx", graph)).outputs[0].dims == ("...",)


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda p: p.stem)
def test_real_models_as_the_onnx_package_reads_them(path: Path) -> None:
    header, model = read_onnx_header(path), onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    wanted = [i.name for i in model.graph.input if i.name not in weights]
    assert [spec.name for spec in header.inputs] == wanted
    assert [spec.name for spec in header.outputs] == [o.name for o in model.graph.output]
    assert header.opset == model.opset_import[0].version
    assert header.ir_version == model.ir_version
    assert sum(header.num_nodes_by_op.values()) == len(model.graph.node)
    assert header.num_nodes_by_op["Conv"] == sum(n.op_type == "Conv" for n in model.graph.node)


def test_operators_in_subgraphs_functions_and_other_domains_are_counted(
    tmp_path: Path,
) -> None:
    then = helper.make_graph(
        [helper.make_node("MaxPool", ["x"], ["a"])], "then", [], [value("a")]
    )
    other = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["b"])], "else", [], [value("b")]
    )
    branch = helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other)
    contrib = helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft")
    function = helper.make_function(
        "own", "Mish", ["x"], ["y"], [helper.make_node("Tanh", ["x"], ["y"])], []
    )
    graph = helper.make_graph([branch, contrib], "g", [value("x", 1)], [value("z")])
    header = read_onnx_header(save(tmp_path / "m.onnx", graph, functions=[function]))
    assert header.num_nodes_by_op == {
        "If": 1,
        "MaxPool": 1,
        "Relu": 1,
        "Tanh": 1,
        "com.microsoft::Gelu": 1,
    }


def test_weights_are_not_read(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones(50_000_000, np.float32), "w")
    path = relu(tmp_path / "m.onnx", initializer=[weights])
    code = """
import resource, sys
from pathlib import Path
from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read_onnx_header(Path(sys.argv[1])).num_nodes_by_op == {"Relu": 1}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = [sys.executable, "-c", code, str(path)]
    grown_kib = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert grown_kib < 20_000, "the 200 MB of weights were read"


def test_weights_in_the_models_own_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(16))
    path = relu(tmp_path / "m.onnx", initializer=[external_tensor("w.data")])
    assert read_onnx_header(path).external_files == ("w.data",)


def test_a_hubs_cache_of_links_is_read(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "d").write_bytes(bytes(16))
    relu(tmp_path / "blobs" / "m", initializer=[external_tensor("w.data")])
    (tmp_path / "snapshot" / "m.onnx").symlink_to("../blobs/m")
    (tmp_path / "snapshot" / "w.data").symlink_to("../blobs/d")
    assert read_onnx_header(tmp_path / "snapshot" / "m.onnx").external_files == ("w.data",)


@pytest.mark.parametrize(
    "location", ["../w.data", "{}/w.data", "a/../../w.data", "..\\w.data"]
)
@pytest.mark.parametrize("where", ["initializer", "attribute", "sparse"])
def test_weights_outside_the_folder_are_refused(
    tmp_path: Path, location: str, where: str
) -> None:
    (tmp_path / "w.data").write_bytes(bytes(16))
    (tmp_path / "in").mkdir()
    tensor = external_tensor(location.format(tmp_path))
    path = tmp_path / "in" / "m.onnx"
    if where == "initializer":
        relu(path, initializer=[tensor])
    elif where == "attribute":
        relu(path, helper.make_node("Constant", [], ["c"], value=tensor))
    else:
        sparse = helper.make_sparse_tensor(
            tensor, helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3]), [9]
        )
        relu(path, sparse_initializer=[sparse])
    with pytest.raises(
        BundleError, match=r"outside its own folder; it is not opened.*you trust"
    ):
        read_onnx_header(path)


def test_a_link_to_weights_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "w.data").symlink_to("../secret")
    path = relu(tmp_path / "in" / "m.onnx", initializer=[external_tensor("w.data")])
    with pytest.raises(BundleError, match="outside its own folder"):
        read_onnx_header(path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = relu(tmp_path / "m.onnx", initializer=[external_tensor("w.data")])
    with pytest.raises(
        BundleError, match=r"keeps weights in 'w\.data', which is missing\. Copy"
    ):
        read_onnx_header(path)


def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = (LIGHT / "light_squeezenet.onnx").read_bytes()
    path = tmp_path / "m.onnx"
    for size in random.Random(0).sample(range(1, len(whole)), 60):
        path.write_bytes(whole[:size])
        with pytest.raises(BundleError) as caught:
            read_onnx_header(path)
        assert "\n" not in str(caught.value)


def test_random_damage_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    whole = (LIGHT / "light_squeezenet.onnx").read_bytes()
    draw = random.Random(0)
    path = tmp_path / "m.onnx"
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(3):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data)
        try:
            read_onnx_header(path)
        except BundleError as error:
            assert "\n" not in str(error)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = b""
    for _ in range(
        5000
    ):  # graph { node { attribute { g … } } }, deeper than onnx itself writes
        attribute = encode_bytes(5, encode_bytes(6, graph))
        graph = encode_bytes(1, attribute)
    path = tmp_path / "m.onnx"
    path.write_bytes(encode_bytes(7, graph))
    with pytest.raises(BundleError, match="nested deeper than 32"):
        read_onnx_header(path)


def test_a_file_that_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.onnx", tmp_path):
        with pytest.raises(
            BundleError, match=r"cannot be opened: .*Give the path of an \.onnx file"
        ):
            read_onnx_header(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = relu(tmp_path / "m.onnx")
    path.chmod(0)
    with pytest.raises(BundleError, match="Permission denied"):
        read_onnx_header(path)
