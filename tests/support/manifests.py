"""Manifests of bundles that tests make by hand."""

from typing import Any

from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.bundle.manifest_fields import AxisRange
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec


def make_manifest(
    name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], **changes: Any
) -> Manifest:
    """A manifest of a float32 network with random weights and, if ``batch`` is open, a proof of it.

    ``changes`` take the place of what is written here.
    """
    is_open = any("batch" in spec.dims for spec in inputs)
    axes = {"batch": AxisRange(symbol="batch", min=1, max=None, proved=(1, 2, 3))}
    facts: dict[str, Any] = {
        "name": name,
        "card": {},
        "opset": 20,
        "ir_version": 10,
        "inputs": inputs,
        "outputs": outputs,
        "dynamic_axes": axes if is_open else {},
        "preprocessing": None,
        "preprocessing_included": False,
        "head": "logits",
        "labels": None,
        "lowering": (),
        "precision": "float32",
        "rho2_limit": 3.0,
        "rhomax_limit": 6.0,
        "limit_reason": "",
        "tools": {},
        "weights": {"kind": "random", "seed": 0, "source": None, "sha256": "0" * 64},
        "files": {},
    }
    return Manifest(**{**facts, **changes})
