"""``dlzoo.diff`` and ``dlzoo.first_wrong_layer``: where, and whose fault."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import dlzoo
from dlzoo.errors import ArgumentError
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.runtime.session.tapped_session import TappedModel

#: ONNX Runtime then computes GELU by its tanh form: a pass of the optimizer that is truly wrong.
APPROXIMATE = {"optimization.enable_gelu_approximation": "1"}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(16, 32)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.fc2(self.act(self.fc1(x)))
        return y


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(x)
        return y


def build() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network at two opsets: GELU is five nodes in 17 and one in 20."""
    place = tmp_path_factory.mktemp("comparison")
    for opset in (17, 20):
        graph = onnx_from_torch(
            build(),
            {"x": torch.zeros(2, 16)},
            output_names=["y"],
            opset=opset,
            dynamic_axes={"x": {0: "batch"}},
        )
        graph.save(place / f"opset{opset}.onnx")
    return place


def change_weight(source: Path, target: Path, name: str) -> None:
    model = onnx.load(source)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[3] += 0.01
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, target)


@pytest.fixture(scope="module")
def faulty(folder: Path) -> Path:
    change_weight(folder / "opset20.onnx", folder / "faulty.onnx", "blocks.1.fc1.bias")
    return folder / "faulty.onnx"


def inputs() -> dict[str, Any]:
    return {"x": np.random.default_rng(1).standard_normal((4, 16)).astype(np.float32)}


def test_a_network_equals_its_graphs(folder: Path) -> None:
    report = dlzoo.diff(build(), folder / "opset17.onnx")
    assert report and report.verdict == "equal", report.explanation
    assert report.matched_by == "traced operator" and len(report.checks) >= 8
    assert dlzoo.first_wrong_layer(build(), folder / "opset20.onnx", inputs()) is None


def test_the_first_wrong_layer_is_one_line(faulty: Path) -> None:
    culprit = dlzoo.first_wrong_layer(build(), faulty, inputs())
    assert culprit is not None
    text = str(culprit)
    assert "\n" not in text
    assert text.startswith("blocks.1.fc1 (")
    assert "test_diff.py:" in text and str(Path(__file__).parent) not in text
    assert "ONNX node node_linear_2 (" in text or "(Add) has rho2" in text
    assert "'blocks.1.fc1.bias' differs from the network's in 1 of 32 elements" in text
    assert "alone on right inputs it is also wrong" in culprit.rerun


def test_a_network_comes_back_as_it_was(folder: Path) -> None:
    network = build().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    dlzoo.diff(network, folder / "opset20.onnx")
    assert all(child.training for child in network.modules())
    assert all(torch.equal(before[n], value) for n, value in network.state_dict().items())


def test_two_graphs_of_one_network_are_equal(folder: Path) -> None:
    report = dlzoo.diff(folder / "opset17.onnx", folder / "opset20.onnx")
    assert report, report.explanation
    assert report.matched_by == "name"


def test_two_graphs_part_at_the_changed_weight(folder: Path, faulty: Path) -> None:
    report = dlzoo.diff(folder / "opset20.onnx", faulty)
    assert report.verdict == "different"
    (culprit,) = report.culprits
    assert culprit.place.module_path == "blocks.1.fc1"
    assert culprit.details == (
        "'blocks.1.fc1.bias' differs from that of opset20.onnx in 1 of 32 elements",
    )
    assert report.attribution is not None and report.attribution.origin == "exporter"
    assert report.to_json()["layers"][0]["verdict"] == "equal"


def test_values_of_other_names_are_aligned(folder: Path, faulty: Path) -> None:
    renamed = onnx.load(faulty)
    outputs = {output.name for output in renamed.graph.output}
    made = {name for node in renamed.graph.node for name in node.output} - outputs
    for node in renamed.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"t_{name}" if name in made else name for name in names]
    onnx.save(renamed, folder / "renamed.onnx")
    report = dlzoo.diff(folder / "opset20.onnx", folder / "renamed.onnx")
    assert report.matched_by == "operator and shape"
    assert len(report.checks) == report.num_values
    (culprit,) = report.culprits
    assert "'blocks.1.fc1.bias' differs" in str(culprit)


def test_a_pass_of_the_optimizer_is_named(folder: Path) -> None:
    report = dlzoo.diff(build(), folder / "opset17.onnx", session_config=APPROXIMATE)
    assert report.attribution is not None
    assert report.attribution.origin == "optimizer"
    assert report.attribution.passes == ("GeluApproximation",)
    assert report.attribution.settings.optimization == "extended"
    assert {j.optimization: bool(j) for j in report.judgements} == {
        "disabled": True,
        "basic": True,
        "extended": False,
    }
    (culprit,) = report.culprits
    assert culprit.place.module_path == "blocks.0.act"
    assert culprit.op_types[0] in ("Div", "Mul") and "Erf" in culprit.op_types


class Averaged(nn.Module):
    """Many terms to a sum, an offset, and an average in which noise cancels and a fault does not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2048, 8, 1, bias=False)
        self.offset = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + self.offset).mean((2, 3)) - 1


def test_a_fault_below_the_noise_is_found_where_it_is(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Averaged().eval()
    example = {"x": torch.zeros(2, 2048, 32, 32)}
    path = tmp_path / "model.onnx"
    axes = {"x": {0: "batch"}}
    onnx_from_torch(network, example, output_names=["y"], dynamic_axes=axes).save(path)
    model = onnx.load(path)
    offset = next(t for t in model.graph.initializer if t.name == "offset")
    shifted = numpy_helper.to_array(offset) + np.float32(22 * 2.0**-23)
    offset.CopyFrom(numpy_helper.from_array(shifted, "offset"))
    onnx.save(model, path)
    x = np.random.default_rng(0).standard_normal((2, 2048, 32, 32)).astype(np.float32) * 2
    culprit = dlzoo.first_wrong_layer(network, path, {"x": x})
    assert culprit is not None and culprit.op_types == ("Add",)
    assert culprit.difference, "at its own place it is below the noise that has gathered"
    assert culprit.alone is not None and not culprit.alone


def test_a_graph_that_cannot_run_is_localized(folder: Path) -> None:
    model = onnx.load(folder / "opset20.onnx")
    node = next(n for n in model.graph.node if n.op_type == "Gelu")
    weight = helper.make_tensor("odd", 1, [7], [0.0] * 7)
    model.graph.initializer.append(weight)
    node.op_type = "Add"
    del node.attribute[:]
    node.input.append("odd")
    onnx.save(model, folder / "unrunnable.onnx")
    report = dlzoo.diff(build(), folder / "unrunnable.onnx")
    assert not report
    assert report.culprits[0].nodes == (node.name,)
    assert "cannot be computed" in str(report.culprits[0])


def test_weights_are_not_in_the_tapped_model(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((512, 512), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", 1, ["n", 512])],
        [helper.make_tensor_value_info("y", 1, ["n", 512])],
        [weight],
    )
    path = tmp_path / "large.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        path,
    )
    model = TappedModel(path)
    assert len(model.graph.tapped(["y"])) < 1000 < path.stat().st_size
    assert list(model.values) == ["y"]


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (("lenet5", "lenet5_relu"), "expected at least one bundle or .onnx file"),
        (("opset20.onnx",), "expected a second model or a second provider"),
        (("opset20.onnx", "opset17.onnx", "--golden"), "is not a folder"),
    ],
)
def test_what_cannot_be_compared(folder: Path, sides: tuple[str, ...], message: str) -> None:
    paths = [folder / side if side.endswith(".onnx") else side for side in sides[:2]]
    golden = folder / "none" if "--golden" in sides else None
    with pytest.raises(dlzoo.errors.DlzooError, match=message) as caught:
        dlzoo.diff(*paths, golden=golden)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ArgumentError) or golden is not None


@pytest.mark.gpu
def test_two_providers_agree(folder: Path) -> None:
    from dlzoo.runtime.session.providers import available_providers

    if "cuda" not in available_providers():
        pytest.skip("the installed onnxruntime has no CUDA provider")
    report = dlzoo.diff(folder / "opset20.onnx", providers=("cpu", "cuda"))
    assert report, report.explanation
    assert {j.provider for j in report.judgements} == {"cpu", "cuda"}


def test_open_image_sizes_are_drawn_as_asked(tmp_path: Path) -> None:
    """A bare file that leaves height and width open: which sizes to compare has to be said."""
    from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
    from dlzoo.zoo.sources.input_spec import InputSpec

    graph = onnx_from_torch(
        torch.nn.Conv2d(3, 4, 3).eval(),
        {"x": torch.zeros(2, 3, 16, 16)},
        output_names=["y"],
        dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}},
    )
    path = tmp_path / "open.onnx"
    graph.save(path)
    with pytest.raises(
        ArgumentError, match=r"height, width open.* `inputs`, for example x=2x3x64x64, or"
    ):
        dlzoo.diff(path, path)
    assert dlzoo.diff(path, path, inputs=[InputSpec(name="x", shape=(1, 3, 9, 11))])
