"""Operators whose only spelling is the exporter's own: right, and nothing else is faster."""

from __future__ import annotations

from dlzoo.export.lowering.registry import Lowering, Operator, add_operator

#: Name, torch operator, formula, ONNX operators, and what there is to know.
_ROWS = (
    ("prelu", "aten.prelu.default", "x for x > 0, else a_c x", ("PRelu",), ""),
    (
        "leaky_relu",
        "aten.leaky_relu.default",
        "x for x > 0, else a x",
        ("LeakyRelu",),
        "fused into the convolution before it",
    ),
    (
        "batch_norm",
        "aten.batch_norm.default",
        "gamma_c (x - mean_c) / sqrt(var_c + eps) + beta_c",
        ("BatchNormalization",),
        "in eval mode; folded into a convolution before it",
    ),
    (
        "max_pool2d",
        "aten.max_pool2d.default",
        "max over windows",
        ("MaxPool",),
        "ceil_mode too",
    ),
    ("softmax", "aten.softmax.int", "exp(x_i) / sum_j exp(x_j)", ("Softmax",), ""),
    ("dropout", "aten.dropout.default", "x in eval mode", (), "leaves no node"),
)

for _name, _torch_operator, _formula, _onnx, _note in _ROWS:
    add_operator(
        Operator(name=_name, torch_operators=(_torch_operator,), formula=_formula),
        Lowering(operator=_name, spelling="native", onnx=_onnx, note=_note),
    )
