"""The operators of ONNX that lowerings call, and constants for them."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx_ir as ir
import onnxscript
from onnxscript.values import Opset

#: Calls by name, as ``op.Exp(x)``. Opset 18 is the exporter's own; what came later has a name of
#: its own. Typed as Any: the stubs take a constant for a tensor of every type.
op: Any = onnxscript.opset18
op20: Any = Opset("", 20)
op21: Any = Opset("", 21)
op24: Any = Opset("", 24)


def ints(*numbers: int) -> Any:
    """A constant row of whole numbers: axes, pads, a shape."""
    return op.Constant(value_ints=list(numbers))


def constant(array: npt.NDArray[Any]) -> Any:
    """A constant tensor."""
    return op.Constant(value=ir.tensor(array))
