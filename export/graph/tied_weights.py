"""Weights that several layers of a network share, as one tensor in the graph, too."""

from __future__ import annotations

import onnx_ir as ir
from torch import Tensor


def merge_tied_weights(model: ir.Model) -> None:
    """Let initializers that are one tensor in the network be one in the graph."""
    first: dict[tuple[object, ...], ir.Value] = {}
    protected = {*model.graph.inputs, *model.graph.outputs}
    for name, value in list(model.graph.initializers.items()):
        raw = getattr(value.const_value, "raw", None)
        if not isinstance(raw, Tensor) or raw.numel() == 0 or value in protected:
            continue
        key = (raw.data_ptr(), raw.dtype, raw.shape, raw.stride())
        if key in first:
            value.replace_all_uses_with(first[key])
            del model.graph.initializers[name]
        else:
            first[key] = value
