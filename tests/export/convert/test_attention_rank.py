"""Attention over tensors of any rank: the same numbers, and a graph."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attention

from dlzoo.export.convert.attention_rank import (
    AttentionInFourDimensions,
    attention_of_any_rank,
)
from dlzoo.export.graph.onnx_graph import OnnxGraph
from tests.support.exported_graphs import run_graph

SIZES = st.lists(st.integers(1, 3), max_size=4)


@settings(deadline=None)  # the first call of an operator takes its time
@given(SIZES, st.sampled_from(["none", "causal", "two axes", "all axes", "one for all"]))
def test_it_is_the_functions_own_answer(batch: list[int], mask: str) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(*batch, *size) for size in ((5, 4), (6, 4), (6, 3)))
    masks = {
        "two axes": torch.randn(5, 6),
        "all axes": torch.randn(*batch, 5, 6),
        "one for all": torch.randn(*[1] * len(batch), 5, 6),
    }
    arguments = {"attn_mask": masks.get(mask), "is_causal": mask == "causal", "scale": 0.3}
    got = attention_of_any_rank(query, key, value, **arguments)
    # The formula, by hand.
    scores = 0.3 * query.double() @ key.double().transpose(-1, -2)
    if mask == "causal":
        scores = scores.masked_fill(~torch.ones(5, 6, dtype=torch.bool).tril(), -torch.inf)
    elif mask in masks:
        scores = scores + masks[mask]
    expected = scores.softmax(-1) @ value.double()
    assert got.shape == expected.shape == (*batch, 5, 3)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_fewer_heads_of_keys_and_broadcast_batches_are_left_alone() -> None:
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 6, 8)
    with AttentionInFourDimensions():
        assert attention(query, key, key, enable_gqa=True).shape == (2, 4, 5, 8)
        wide = attention(torch.randn(3, 2, 1, 5, 8), torch.randn(1, 2, 4, 6, 8), key[:1, :1])
    assert wide.shape == (3, 2, 4, 5, 8)


class Windows(nn.Module):
    """Attention within windows of two by two, the windows an axis of their own; and without heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        batch, num_windows, _, _ = x.shape
        packed = self.qkv(x).reshape(batch, num_windows, 4, 3, 2, 4)
        query, key, value = packed.permute(3, 0, 1, 4, 2, 5).unbind(0)
        y = attention(query, key, value).transpose(2, 3).reshape(batch, num_windows * 4, 8)
        return attention(y, y, y)


def test_windows_export_with_an_open_batch(
    export: Callable[..., OnnxGraph], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = Windows()
    graph = export(network, 2, 5, 4, 8)
    for batch in (1, 2, 3):
        x = torch.randn(batch, 5, 4, 8)
        with torch.no_grad():
            expected = network(x).numpy()
        (got,) = run_graph(graph, tmp_path, x=x)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [3, 5])
def test_the_exporter_itself_still_takes_four_dimensions_alone(rank: int) -> None:
    """When this fails, attention_rank.py can go."""

    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return attention(x, x, x)

    x = torch.randn(*[2] * (rank - 2), 5, 4)
    with pytest.raises(torch.onnx.OnnxExporterError):
        torch.onnx.export(Attention().eval(), (x,), dynamo=True, verbose=False)
