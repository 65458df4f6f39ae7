"""``dlzoo diff`` as a user meets it."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.dlzoo_process import run_dlzoo


@pytest.fixture(scope="module")
def faulty(lenet_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's graph with two rows of one weight swapped."""
    model = onnx.load(lenet_bundle / "model.onnx")
    node = [n for n in model.graph.node if n.op_type == "Conv"][1]
    tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
    weight = numpy_helper.to_array(tensor)[[1, 0, *range(2, 16)]]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weight), tensor.name))
    path = tmp_path_factory.mktemp("diff") / "faulty.onnx"
    onnx.save(model, path)
    return path


def test_a_bundle_equals_its_network(lenet_bundle: Path) -> None:
    done = run_dlzoo("diff", "lenet5_relu", lenet_bundle, "--weights", "random", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "equal" and document["culprits"] == []
    assert document["values"]["compared"] == document["values"]["total"] == 12
    assert {c["optimization"] for c in document["candidates"]} >= {"disabled", "all"}


def test_a_fault_is_named(faulty: Path) -> None:
    done = run_dlzoo("diff", "lenet5_relu", faulty, "--weights", "random")
    assert done.returncode == 1
    assert done.stdout.startswith("DIFFERENT  faulty.onnx against lenet5_relu\n")
    assert max(map(len, done.stdout.splitlines())) <= 80
    for words in ("first wrong  ONNX node node_conv2d_1 (Conv)", "layer        c3"):
        assert words in done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert "c3: ONNX node node_conv2d_1 (Conv) has rho2" in done.stderr


def test_a_graph_against_a_bundle_as_json(lenet_bundle: Path, faulty: Path) -> None:
    done = run_dlzoo("diff", lenet_bundle, faulty, "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["culprits"][0]["module"] == "c3"
    assert document["culprits"][0]["nodes"] == [{"name": "node_conv2d_1", "op_type": "Conv"}]
    assert document["attribution"]["origin"] == "exporter"
    assert [row["verdict"] for row in document["layers"][:3]] == ["equal"] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.onnx", "elsewhere.onnx"], "elsewhere.onnx cannot be opened"),
        (["lenet5_relu", "lenet5"], "expected at least one bundle or .onnx file"),
        (["{bundle}"], "expected a second model or a second provider"),
        (
            ["{bundle}", "--provider", "cpu", "--provider", "nonsense"],
            "No provider is named 'nonsense'",
        ),
        (["{bundle}", "{bundle}", "--session-config", "x"], "--session-config got 'x'"),
    ],
)
def test_mistakes_are_one_line(lenet_bundle: Path, arguments: list[str], words: str) -> None:
    done = run_dlzoo("diff", *(a.format(bundle=lenet_bundle) for a in arguments))
    assert done.returncode == 2, done.stdout
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr


def test_a_page_shows_every_layer(lenet_bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run_dlzoo(
        *("diff", "lenet5_relu", lenet_bundle, "--weights", "random", "--report", page)
    )
    assert done.returncode == 0, done.stderr
    html = page.read_text()
    assert "This ONNX model gives PyTorch's answers" in html
    assert html.count('<circle class="layer"') == 12
    assert str(tmp_path) not in html and str(lenet_bundle) not in html


def test_the_page_of_a_difference_says_so(
    lenet_bundle: Path, faulty: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "lenet"
    shutil.copytree(lenet_bundle, bundle)
    shutil.copy(faulty, bundle / "model.onnx")
    page = tmp_path / "page.html"
    done = run_dlzoo("diff", "lenet5_relu", bundle, "--weights", "random", "--report", page)
    assert done.returncode == 1, done.stderr
    html = page.read_text()
    assert '<span class="verdict fail">fail</span>' in html
    assert "The first of 9 layers beyond the limits: <code>c3</code>" in html


def test_a_page_needs_a_network_and_its_bundle(lenet_bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run_dlzoo("diff", lenet_bundle, lenet_bundle, "--report", page)
    assert done.returncode == 2 and not page.exists()
    assert "expected a MODEL and its bundle" in done.stderr
    missing = tmp_path / "none" / "page.html"
    done = run_dlzoo("diff", "lenet5_relu", lenet_bundle, "--report", missing)
    assert done.returncode == 2
    assert f"page.html cannot be written: there is no folder {tmp_path}/none" in done.stderr
