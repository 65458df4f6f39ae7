"""Pooling: a window slides over each channel and keeps one number a place.

The number of places is :func:`dlzoo.zoo.layers.conv.output_size`'s.

N   samples          H   height
C   channels         W   width
"""

from __future__ import annotations

from functools import partial

from torch import nn

from dlzoo.zoo.layers.registry import register_layer

register_layer(
    "max_pool",
    kind="pool",
    formula="max over the window; what lies in the padding is absent",
    source="Jarrett et al. 2009, What is the best multi-stage architecture, section 2.1; "
    "overlapping: Krizhevsky et al. 2012, section 3.4",
    onnx_nodes=("MaxPool",),
    native=("MaxPool", 1),
    onnx="Native, ceil_mode too from opset 10. ONNX Runtime's CPU kernel loses a NaN that "
    "torch keeps.",
)(nn.MaxPool2d)

register_layer(
    "average_pool",
    kind="pool",
    formula="mean over the window; padding counts as zeros unless count_include_pad is False",
    source="LeCun et al. 1998, section II.B (there with a trained factor and bias: subsampling)",
    onnx_nodes=("AveragePool",),
    native=("AveragePool", 1),
    onnx="Native, ceil_mode too from opset 10.",
)(nn.AvgPool2d)

register_layer(
    "global_average_pool",
    kind="pool",
    formula="mean over H and W",
    source="Lin, Chen & Yan 2013, Network in network, section 3.2",
    onnx_nodes=("ReduceMean",),
    native=("GlobalAveragePool", 1),
    onnx="ReduceMean over the two last axes, so any height and width will do.",
)(partial(nn.AdaptiveAvgPool2d, 1))

register_layer(
    "adaptive_average_pool",
    kind="pool",
    formula="mean over rows floor(i H / n) to ceil((i + 1) H / n), and so for columns",
    source="He et al. 2014, Spatial pyramid pooling, section 2.3 (bins that follow the size)",
    onnx_nodes=("AveragePool",),
    onnx="One AveragePool for the exported size where that is a multiple of n, so it holds "
    "for no other size; where it is not, dozens of Gather and Add.",
)(nn.AdaptiveAvgPool2d)
