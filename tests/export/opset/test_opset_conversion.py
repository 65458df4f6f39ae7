"""Each opset is delivered as asked, with right answers, or refused with the lowest that works."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.errors import ExportError, OpsetError
from dlzoo.export.graph.onnx_graph import OnnxGraph

Export = Callable[..., OnnxGraph]

#: float32 sums of at most 27 products.
SMALL_ERROR = 1e-5


@pytest.mark.parametrize("opset", range(11, 26))
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


class Contracts(nn.Module):
    """Einsum came with opset 12."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ncx,ndx->ncd", x, x)


class Samples(nn.Module):
    """GridSample came with opset 16."""

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.tanh(x[:, :2].permute(0, 2, 3, 1))
        return F.grid_sample(x, grid, align_corners=False)


@pytest.mark.parametrize(
    ("module", "shape", "opset", "reason", "lowest"),
    [
        (Samples(), (2, 3, 5, 5), 13, "GridSample came with opset 16", 16),
        (Samples(), (2, 3, 5, 5), 11, "GridSample came with opset 16", 16),
        (Contracts(), (2, 3, 5), 11, "Einsum came with opset 12", 12),
    ],
)
def test_operator_without_an_older_form_is_named(
    export: Export,
    module: nn.Module,
    shape: tuple[int, ...],
    opset: int,
    reason: str,
    lowest: int,
) -> None:
    with pytest.raises(OpsetError) as e:
        export(module, *shape, opset=opset)
    assert str(e.value) == (
        f"Opset {opset} cannot be delivered for this network: {reason}. The lowest that works "
        f"is {lowest}: use `opset={lowest}`."
    )
    assert export(module, *shape, opset=lowest).opset == lowest


def test_operator_that_a_lower_opset_lacks_is_spelled_by_older_ones(export: Export) -> None:
    assert "Mish" not in export(nn.Mish(), 2, 3, opset=15).num_nodes_by_op


def test_group_norm_may_change_its_spelling_with_the_opset(export: Export) -> None:
    norm = nn.GroupNorm(2, 8)
    with pytest.raises(ExportError, match="native needs opset 21"):
        export(norm, 2, 8, 4, 4, opset=20, lowerings={"group_norm": "native"})
    native = export(norm, 2, 8, 4, 4, opset=21, lowerings={"group_norm": "native"})
    assert native.lowering[0]["onnx"] == ["GroupNormalization"]
    assert native.lowering[0]["reason"] == "asked for: group_norm=native"
    # The native one expands to 29 nodes in ONNX Runtime, and is slower.
    for opset in (20, 21):
        fastest = export(norm, 2, 8, 4, 4, opset=opset).lowering[0]
        assert (fastest["spelling"], fastest["lowering"]) == (
            "decomposed",
            "decomposed:affine",
        )
