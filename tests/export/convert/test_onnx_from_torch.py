"""What is asked of an export is delivered, and the network comes back as it was."""

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from tests.support.exported_graphs import SMALL_ERROR, run_graph

Export = Callable[..., OnnxGraph]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_graph_computes_what_the_network_does(
    small_net: nn.Module, small_graph: OnnxGraph, tmp_path: Path, batch: int
) -> None:
    x = torch.randn(batch, 3, 16, 16)
    (logits,) = run_graph(small_graph, tmp_path, input=x)
    expected = small_net(x).detach().numpy()
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < SMALL_ERROR


def test_facts_of_the_graph(small_graph: OnnxGraph) -> None:
    assert small_graph.opset == 20
    assert small_graph.ir_version == 10
    assert small_graph.inputs == (
        TensorSpec(name="input", dtype="float32", dims=("batch", 3, 16, 16)),
    )
    assert small_graph.outputs == (
        TensorSpec(name="logits", dtype="float32", dims=("batch", 5)),
    )
    assert small_graph.dynamic_axes == {
        "batch": AxisRange(symbol="batch", min=1, max=None, proved=())
    }
    assert small_graph.num_nodes_by_op["Relu"] == 2
    assert "conv.weight" in small_graph.parameters
    assert "norm.running_var" in small_graph.parameters
    assert "norm.num_batches_tracked" not in small_graph.parameters
    assert small_graph.notes == ()


def test_dead_initializers_are_gone(small_graph: OnnxGraph) -> None:
    names = set(small_graph.model.graph.initializers)
    assert not any("norm" in name for name in names), (
        "batch norm is folded into the convolution"
    )
    used = {v.name for node in small_graph.model.graph for v in node.inputs if v is not None}
    assert names <= used


def test_file_names_no_path_and_keeps_module_paths(
    small_graph: OnnxGraph, tmp_path: Path
) -> None:
    graph = small_graph
    graph.save(tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    here = Path(__file__)
    for trace in (str(here.parent), here.name, "conftest.py", str(Path.home()), "stack_trace"):
        assert trace.encode() not in content
    proto = onnx.load(tmp_path / "model.onnx")
    assert {p.key for node in proto.graph.node for p in node.metadata_props} == {
        "pkg.torch.onnx.name_scopes"
    }
    scopes = {p.value for node in proto.graph.node for p in node.metadata_props}
    assert any("'fc'" in scope for scope in scopes)
    values = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    messages = [proto, proto.graph, *values, *proto.graph.initializer]
    assert not any(m.metadata_props for m in messages)
    assert not any(m.doc_string for m in [*messages, *proto.graph.node])
    assert (proto.producer_name, proto.producer_version) == ("dlzoo", "0.1.0")


def test_same_network_twice_gives_the_same_bytes(
    small_net: nn.Module, small_graph: OnnxGraph, tmp_path: Path
) -> None:
    again = onnx_from_torch(
        small_net,
        {"input": torch.ones(2, 3, 16, 16)},
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}},
    )
    small_graph.save(tmp_path / "first.onnx")
    again.save(tmp_path / "again.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()


def _numpy_stream() -> str:
    """The global one, which a network's code may draw from."""
    return repr(np.random.get_state(legacy=False))  # noqa: NPY002


def test_network_comes_back_as_it_was(small_net: nn.Module, export: Export) -> None:
    small_net.train()
    small_net.norm.eval()  # frozen statistics, as in fine-tuning
    small_net.fc.weight.requires_grad_(False)
    modes = {name: child.training for name, child in small_net.named_modules()}
    grads = {name: p.requires_grad for name, p in small_net.named_parameters()}
    state = {name: value.clone() for name, value in small_net.state_dict().items()}
    streams = torch.get_rng_state(), random.getstate(), _numpy_stream()
    filters = list(warnings.filters)
    graph = onnx_from_torch(
        small_net, {"x": torch.zeros(2, 3, 16, 16)}, output_names=["y"], dynamic_axes={}
    )
    assert {name: child.training for name, child in small_net.named_modules()} == modes
    assert {name: p.requires_grad for name, p in small_net.named_parameters()} == grads
    assert all(
        torch.equal(state[name], value) for name, value in small_net.state_dict().items()
    )
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]
    assert _numpy_stream() == streams[2]
    assert warnings.filters == filters
    assert torch.backends.mha.get_fastpath_enabled()
    assert graph.notes == (
        "7 of 8 modules were in training mode: the network was exported in eval mode (no dropout, "
        "fixed statistics) and set back.",
    )
    assert "Dropout" not in graph.num_nodes_by_op


class StaysInTraining(nn.Module):
    """Monte-Carlo dropout as some write it: eval() does not reach it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout()

    def train(self, mode: bool = True) -> "StaysInTraining":
        super().train(True)
        return self

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(x) * 2
        return y


def test_dropout_that_refuses_eval_is_off_in_the_graph(export: Export) -> None:
    module = StaysInTraining()
    graph = export(module, 2, 3)
    assert graph.num_nodes_by_op == {"Mul": 1}
    assert module.drop.training


class Chatty(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("looking at", x.shape[1])
        warnings.warn("the weights are old", stacklevel=1)
        return x * 2


def test_nothing_is_printed_and_what_matters_is_noted(
    export: Export, capfd: pytest.CaptureFixture[str]
) -> None:
    graph = export(Chatty(), 2, 3)
    assert capfd.readouterr() == ("", "")
    assert graph.notes == ("the weights are old", "printed: looking at 3")


class Recurrent(nn.Module):
    """Makes the exporter warn of weights, of axes that have one symbol and of constants."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        y: Tensor = self.lstm(x)[0]
        return y * scale[:, None, None], torch.ones(3)


def test_what_the_exporter_says_of_itself_is_not_noted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    graph = onnx_from_torch(
        Recurrent().eval(),
        {"x": torch.zeros(2, 5, 3), "scale": torch.zeros(2)},
        output_names=["y", "ones"],
        dynamic_axes={"x": {0: "batch"}, "scale": {0: "batch"}},
    )
    assert graph.notes == ()
    assert capfd.readouterr() == ("", "")


def test_batch_normalization_of_training_is_exported_on_request(
    export: Export, tmp_path: Path
) -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3))
    graph = export(network, 2, 3, 4, 4)
    (note,) = graph.notes
    assert note == (
        "0 normalizes with the statistics of the batch it is given: the answer for an image "
        "depends on the others in its batch."
    )
    x = torch.randn(3, 3, 4, 4) * 2 + 1
    (y,) = run_graph(graph, tmp_path, x=x)
    # The first as in training, by this batch; the second by its running statistics, 0 and 1.
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    expected = (x - mean) / torch.sqrt(var + 1e-5) / (1 + 1e-5) ** 0.5
    assert np.abs(y - expected.numpy()).max() < SMALL_ERROR


class TakesTwo(nn.Module):
    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return image - mask, {"sum": image + mask, "mean": image.mean()}


def test_inputs_go_by_name_and_outputs_in_order(tmp_path: Path) -> None:
    image, mask = torch.full((2, 3), 5.0), torch.full((2, 3), 2.0)
    graph = onnx_from_torch(
        TakesTwo().eval(),
        {"mask": mask, "image": image},
        output_names=["difference", "sum", "mean"],
        dynamic_axes={"mask": {0: "batch"}, "image": {0: "batch"}},
    )
    assert [spec.dims for spec in graph.outputs] == [("batch", 3), ("batch", 3), ()]
    assert list(graph.dynamic_axes) == ["batch"]
    difference, total, mean = run_graph(graph, tmp_path, mask=mask, image=image)
    assert (difference[0, 0], total[0, 0], mean) == (3.0, 7.0, 5.0)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64, bias=False)
        self.second = nn.Linear(64, 64, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).relu())
        return y


def test_tied_weights_are_stored_once(export: Export, tmp_path: Path) -> None:
    graph = export(Tied(), 2, 64)
    assert graph.save(tmp_path / "model.onnx").size_bytes < 1.5 * 64 * 64 * 4


def test_attention_exports_without_the_fused_kernel(export: Export, tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad():
        graph = export(layer, 2, 5, 8)
        x = torch.randn(3, 5, 8)
        expected = layer(x).numpy()
    (y,) = run_graph(graph, tmp_path, x=x)
    assert np.abs(y - expected).max() < SMALL_ERROR


class MaskedAttention(nn.Module):
    """As timm's relative positions do: a bias for each pair, then heads side by side again."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.bias = nn.Parameter(torch.randn(1, 2, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(-1, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        return y.transpose(1, 2).reshape(-1, 5, 8)


def test_attention_with_a_bias_exports(export: Export, tmp_path: Path) -> None:
    # torch.onnx alone: "Failed to decompose the FX graph", the fused kernel's strides.
    network = MaskedAttention().eval()
    graph = export(network, 2, 5, 8)
    x = torch.randn(3, 5, 8)
    (y,) = run_graph(graph, tmp_path, x=x)
    assert np.abs(y - network(x).detach().numpy()).max() < SMALL_ERROR
