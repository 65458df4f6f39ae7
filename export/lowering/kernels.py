"""Which ONNX operators a target has kernels for: from its build, or from a table with its source.

ort-cpu     ONNX Runtime on CPU        asked of the installed build
ort-cuda    ONNX Runtime on CUDA       asked of the build where it has CUDA, else the table
tensorrt    TensorRT's ONNX parser     the table
openvino    OpenVINO's ONNX frontend   the table
portable    any runtime                every operator of the ONNX standard, and nothing else
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, get_args

import onnx.defs

from dlzoo.errors import ArgumentError
from dlzoo.export.lowering.kernel_tables import KERNEL_TABLES

Target = Literal["ort-cpu", "ort-cuda", "tensorrt", "openvino", "portable"]
TARGETS: tuple[Target, ...] = get_args(Target)

_PROVIDERS = {"ort-cpu": "CPUExecutionProvider", "ort-cuda": "CUDAExecutionProvider"}
#: ONNX Runtime writes an operator without a kernel out as the body that ONNX defines for it.
_EXPANDING = ("ort-cpu", "ort-cuda", "portable")

#: How a target runs an operator of ONNX.
Status = Literal["kernel", "expanded", "missing"]


def require_target(name: str) -> Target:
    """The target of that name.

    Raises:
        ArgumentError: there is none.
    """
    if name not in TARGETS:
        raise ArgumentError(
            f"`target` got {name!r}, expected one of {', '.join(TARGETS)}. Choose where the "
            "model will run."
        )
    return name


def kernel_status(name: str, opset: int, target: Target) -> Status:
    """How ``target`` runs an operator: by a kernel, by ONNX's own definition of it, or not.

    Args:
        name: ``Mish``, or ``com.microsoft::Gelu``.
        opset: of the default domain.
        target: where the model will run.
    """
    domain, _, op_type = name.rpartition("::")
    if domain == "":
        schema = _schema(op_type, opset)
        if schema is None:
            return "missing"
        if _has_kernel(op_type, domain, schema.since_version, target):
            return "kernel"
        has_body = schema.has_function or schema.has_context_dependent_function
        return "expanded" if has_body and target in _EXPANDING else "missing"
    if domain == "dlzoo":  # a function brings its body along
        return "expanded" if target in _EXPANDING else "missing"
    return "kernel" if _has_kernel(op_type, domain, 1, target) else "missing"


def missing_operator(names: tuple[str, ...], opset: int, target: Target) -> str:
    """The first of ``names`` that the target cannot run; empty where it runs them all."""
    return next(
        (name for name in names if kernel_status(name, opset, target) == "missing"), ""
    )


def has_kernel_of_types(
    op_type: str, domain: str, since_version: int, types: Mapping[str, str]
) -> bool:
    """Whether ONNX Runtime's CPU provider, as installed, has a kernel for these types.

    Args:
        op_type: the operator.
        domain: its domain.
        since_version: of its schema.
        types: type parameter -> type, as in ``{"T": "tensor(double)"}``; one that is not given
            counts as any.
    """
    kernels = _types_of_kernels().get((domain, op_type), [])
    return any(
        low <= since_version <= high
        and all(
            types.get(name, allowed[0]) in allowed for name, allowed in constraints.items()
        )
        for (low, high), constraints in kernels
    )


@cache
def _types_of_kernels() -> dict[
    tuple[str, str], list[tuple[tuple[int, int], dict[str, list[str]]]]
]:
    """The CPU provider's kernels by operator: versions, and the types of each parameter."""
    from onnxruntime.capi import _pybind_state

    found: dict[tuple[str, str], list[tuple[tuple[int, int], dict[str, list[str]]]]] = {}
    for kernel in _pybind_state.get_all_opkernel_def():
        if kernel.provider == _PROVIDERS["ort-cpu"]:
            constraints = {
                name: types for name, types in kernel.type_constraints.items() if types
            }
            found.setdefault((kernel.domain, kernel.op_name), []).append(
                (kernel.version_range, constraints)
            )
    return found


def _schema(op_type: str, opset: int) -> Any:  # onnx's types lack has_function
    try:
        return onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        return None


def _has_kernel(op_type: str, domain: str, since_version: int, target: Target) -> bool:
    if target == "portable":
        return domain == ""
    kernels = _kernels_of_build().get(_PROVIDERS.get(target, ""))
    if kernels is not None:
        ranges = kernels.get((domain, op_type), ())
        return any(low <= since_version <= high for low, high in ranges)
    if target == "ort-cpu":
        # No ONNX Runtime is installed to ask: it ships kernels for whatever ONNX defines no body.
        return domain == "" and since_version > 0
    listed = KERNEL_TABLES[target].get(f"{domain}::{op_type}" if domain else op_type, ())
    return any(low <= since_version <= high for low, high in listed)


@cache
def _kernels_of_build() -> dict[str, dict[tuple[str, str], list[tuple[int, int]]]]:
    """The version ranges of every kernel in the installed build, by provider."""
    try:
        from onnxruntime.capi import _pybind_state
    except ImportError:
        return {}
    found: dict[str, dict[tuple[str, str], list[tuple[int, int]]]] = {}
    for kernel in _pybind_state.get_all_opkernel_def():
        ranges = found.setdefault(kernel.provider, {})
        ranges.setdefault((kernel.domain, kernel.op_name), []).append(kernel.version_range)
    return found
