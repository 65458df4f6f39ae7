"""Operators with a kernel on targets that cannot be asked here, as their makers list them.

Only operators that a lowering uses and that some target lacks are worth a row; those that every
target has since opset 11 stand in ``EVERYWHERE``.
"""

from __future__ import annotations

#: First and last version of the operator's definition that a kernel takes.
_Ranges = tuple[tuple[int, int], ...]

_NO_END = 2**31 - 1
_ALL: _Ranges = ((1, _NO_END),)

#: In each of the lists below without a restriction that matters to a lowering.
_EVERYWHERE: dict[str, _Ranges] = dict.fromkeys(
    (
        *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant", "Div"),
        *("Erf", "Exp", "Gather", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"),
        *("Identity", "InstanceNormalization", "LRN", "LeakyRelu", "MatMul", "MaxPool", "Mul"),
        *("Neg", "PRelu", "Pad", "Pow", "ReduceMax", "ReduceMean", "ReduceSum", "Relu"),
        *("Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax", "Softplus", "Sqrt"),
        *("Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Abs", "Log", "Where"),
        *("Greater", "Split", "ConstantOfShape", "Reciprocal", "Expand", "ReduceSumSquare"),
    ),
    _ALL,
)

KERNEL_TABLES: dict[str, dict[str, _Ranges]] = {
    # TensorRT 8.5, which reads opsets up to 17. LayerNormalization is listed with "N"; Mish,
    # Gelu and GroupNormalization are not listed.
    # Source: onnx/onnx-tensorrt, docs/operators.md, commit 6d0ab7be.
    "tensorrt": _EVERYWHERE | {"HardSwish": _ALL},
    # Source: openvinotoolkit/openvino, src/frontends/onnx/docs/supported_ops.md, commit b2cfecf8;
    # a version there holds for all that follow it, until the next one.
    "openvino": _EVERYWHERE
    | {
        "Gelu": _ALL,
        "GroupNormalization": _ALL,
        "HardSwish": _ALL,
        "LayerNormalization": _ALL,
        "Mish": _ALL,
    },
    # ONNX Runtime with CUDA: Mish, GroupNormalization and Swish are not listed.
    # Source: microsoft/onnxruntime, docs/OperatorKernels.md, commit 001d12d2, CUDAExecutionProvider;
    # that MaxPool-22 and InstanceNormalization-22 are missing, from the registrations in the
    # library of onnxruntime-gpu 1.31.1. ReduceSumSquare in float32: cuda_execution_provider.cc.
    "ort-cuda": _EVERYWHERE
    | {
        "Gelu": _ALL,
        "HardSwish": _ALL,
        "LayerNormalization": _ALL,
        "MaxPool": ((1, 21),),
        "InstanceNormalization": ((1, 21),),
        "com.microsoft::FastGelu": _ALL,
        "com.microsoft::Gelu": _ALL,
        "com.microsoft::QuickGelu": _ALL,
    },
}
