"""How each operator is written in ONNX: one operator a file.

Importing this package registers them all in ``OPERATORS``.
"""

from __future__ import annotations

from dlzoo.export.lowering.operators import (
    adaptive_pool,
    antialiased_resize,
    average_pool,
    ceil_pool,
    expm1,
    exporters_own,
    gelu,
    group_norm,
    hardswish,
    instance_norm,
    layer_norm,
    local_response_norm,
    log1p,
    log_sigmoid,
    logaddexp,
    mean,
    mish,
    silu,
    softplus,
    variance,
)
from dlzoo.export.lowering.registry import OPERATORS

__all__ = ["MODULES", "OPERATORS"]

#: Each registers its operators when it is imported.
MODULES = (
    *(mish, gelu, silu, hardswish, softplus),
    *(log_sigmoid, log1p, expm1, logaddexp),
    *(local_response_norm, group_norm, instance_norm, layer_norm, mean, variance),
    *(adaptive_pool, average_pool, ceil_pool, antialiased_resize, exporters_own),
)
