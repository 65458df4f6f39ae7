"""Each opset is delivered as asked, with right answers, or refused with the lowest that works."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from dlzoo.errors import OpsetError
from dlzoo.export.onnx_from_torch import OnnxGraph, onnx_from_torch
from dlzoo.export.opset_conversion import convert_down

Export = Callable[..., OnnxGraph]

#: float32 sums of at most 27 products.
SMALL_ERROR = 1e-5


@pytest.mark.parametrize("opset", range(14, 26))
def test_opset_is_delivered(
    export: Export, small_net: nn.Module, tmp_path: Path, opset: int
) -> None:
    graph = export(small_net, 2, 3, 16, 16, opset=opset)
    graph.save(tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": opset}
    assert all(node.metadata_props for node in proto.graph.node), "module paths are kept"
    assert not proto.graph.doc_string
    x = torch.randn(3, 3, 16, 16)
    (y,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x.numpy()})
    assert np.abs(y - small_net(x).detach().numpy()).max() < SMALL_ERROR


@pytest.fixture(scope="module")
def graph_at_18() -> OnnxGraph:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    return onnx_from_torch(net, {"x": torch.zeros(2, 3, 8, 8)}, output_names=["y"], opset=18)


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13])
def test_opset_without_a_converter_is_refused(graph_at_18: OnnxGraph, opset: int) -> None:
    with pytest.raises(OpsetError) as e:
        convert_down(graph_at_18.model, opset)
    assert str(e.value) == (
        f"Opset {opset} cannot be delivered for this network: onnx's converter says: No Adapter "
        "From Version $14 for Relu. The lowest that works is 14: use --opset 14."
    )


def test_operator_that_a_lower_opset_lacks_is_spelled_by_older_ones(export: Export) -> None:
    assert "Mish" not in export(nn.Mish(), 2, 3, opset=15).num_nodes_by_op


def test_group_norm_changes_its_spelling_with_the_opset(export: Export) -> None:
    norm = nn.GroupNorm(2, 8)
    spellings = {o: export(norm, 2, 8, 4, 4, opset=o).lowering[0] for o in (20, 21)}
    assert (spellings[20]["spelling"], spellings[21]["spelling"]) == ("decomposed", "native")
    assert "InstanceNormalization" in spellings[20]["onnx"]
    assert spellings[21]["onnx"] == ["GroupNormalization"]
