"""The inputs and outputs of a served model in the protocol's terms, and the check of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dlzoo.errors import BundleError
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.runtime.onnx_reader.tensor_spec import TensorSpec
from dlzoo.runtime.protocol.datatypes import DATATYPES, Array
from dlzoo.runtime.protocol.refusal import RefusalError

#: A request's inputs by name: datatype and values.
Inputs = Mapping[str, tuple[str, Array]]


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """An input or output: its name, datatype, and sizes (a str is a symbol)."""

    name: str
    datatype: str
    dims: tuple[int | str, ...]

    @property
    def shape(self) -> list[int]:
        """The sizes as the protocol writes them: -1 for one that varies."""
        return [-1 if isinstance(size, str) else size for size in self.dims]

    @classmethod
    def of(cls, spec: TensorSpec, model: str) -> TensorInfo:
        """Convert an input or output that a manifest declares.

        Raises:
            BundleError: its dtype cannot be served.
        """
        datatype = DATATYPES.get(spec.dtype)
        # ONNX Runtime's Python interface takes and gives NumPy arrays, which have no bfloat16.
        if datatype is None or datatype == "BF16":
            raise BundleError(
                f"{model} has {spec.name!r} of dtype {spec.dtype}, which cannot be served. "
                "Export it with float32 inputs and outputs."
            )
        return cls(name=spec.name, datatype=datatype, dims=spec.dims)


class Signature:
    """The inputs and outputs of a model, with the allowed range of every symbol.

    ``batch_symbol`` names the axis along which requests may be joined: the first axis of every
    input and output and no other one; None if there is no such axis.
    """

    def __init__(self, manifest: Manifest, *, max_batch: int) -> None:
        """Read the signature from a manifest.

        Args:
            manifest: the bundle's manifest.
            max_batch: the most samples of one request, and of one batch.

        Raises:
            BundleError: an input or output has a dtype that cannot be served.
        """
        name = manifest.name
        self.inputs = {spec.name: TensorInfo.of(spec, name) for spec in manifest.inputs}
        self.outputs = {spec.name: TensorInfo.of(spec, name) for spec in manifest.outputs}
        self.ranges = {
            symbol: (max(1, axis.min), axis.max)
            for symbol, axis in manifest.dynamic_axes.items()
        }
        self.integer_ranges = dict(manifest.integer_ranges)
        self.batch_symbol = self._batch_symbol()
        self.max_batch = 0
        if self.batch_symbol is not None:
            largest = self.ranges.get(self.batch_symbol, (1, None))[1]
            self.max_batch = max_batch if largest is None else min(max_batch, largest)

    def _batch_symbol(self) -> str | None:
        tensors = [*self.inputs.values(), *self.outputs.values()]
        symbols = {tensor.dims[0] if tensor.dims else 1 for tensor in tensors}
        if len(symbols) != 1:
            return None
        (symbol,) = symbols
        inner = {size for tensor in tensors for size in tensor.dims[1:]}
        return symbol if isinstance(symbol, str) and symbol not in inner else None

    def check(self, inputs: Inputs) -> int:
        """Make sure that a request's inputs fit the model.

        Returns:
            The number of samples: the size of the batch axis, or 1 without one.

        Raises:
            RefusalError: an input is missing, unknown, or of another datatype or shape.
        """
        if inputs.keys() != self.inputs.keys():
            raise RefusalError(f"got inputs {_names(inputs)}, expected {_names(self.inputs)}")
        sizes: dict[str, int] = {}
        for name, info in self.inputs.items():
            datatype, array = inputs[name]
            if datatype != info.datatype:
                raise RefusalError(
                    f"input {name!r} has datatype {datatype}, expected {info.datatype}"
                )
            shape = array.shape
            if len(shape) != len(info.dims):
                raise self._wrong_shape(info, array)
            for size, expected in zip(shape, info.dims, strict=True):
                if isinstance(expected, str):
                    if sizes.setdefault(expected, size) != size:
                        raise RefusalError(
                            f"input {name!r}: axis {expected!r} has size {size}, and "
                            f"{sizes[expected]} elsewhere in the request"
                        )
                elif size != expected:
                    raise self._wrong_shape(info, array)
            if name in self.integer_ranges:
                self._check_integers(name, array)
        for symbol, size in sizes.items():
            self._check_size(symbol, size)
        return sizes[self.batch_symbol] if self.batch_symbol is not None else 1

    def _check_size(self, symbol: str, size: int) -> None:
        smallest, largest = self.ranges.get(symbol, (1, None))
        if symbol == self.batch_symbol:
            largest = self.max_batch
        if size < smallest or (largest is not None and size > largest):
            limit = (
                f"{smallest} to {largest}" if largest is not None else f"{smallest} or more"
            )
            raise RefusalError(f"axis {symbol!r} has size {size}, expected {limit}")

    def _check_integers(self, name: str, array: Array) -> None:
        low, high = self.integer_ranges[name]
        if array.size and not (array.min() >= low and array.max() <= high):
            raise RefusalError(
                f"input {name!r} holds values from {array.min()} to {array.max()}, expected "
                f"{low} to {high}"
            )

    @staticmethod
    def _wrong_shape(info: TensorInfo, array: Array) -> RefusalError:
        expected = ", ".join(str(size) for size in info.dims)
        return RefusalError(
            f"input {info.name!r} has shape {list(array.shape)}, expected [{expected}]"
        )

    def refuse_non_finite(self, inputs: Inputs) -> None:
        """Make sure that no input holds NaN or an infinity.

        Raises:
            RefusalError: an input does.
        """
        for name, (_, array) in inputs.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise RefusalError(
                    f"input {name!r} holds NaN or infinities, which this server refuses"
                )


def _names(inputs: Mapping[str, object]) -> str:
    text = ", ".join(sorted(inputs)) or "none"
    return text if len(text) <= 200 else f"{text[:200]}…"
