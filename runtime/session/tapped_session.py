"""A model whose every value can be looked at, in sessions that share one copy of its weights.

Taps are further outputs, added to a copy of the graph in memory. ONNX Runtime does not fuse nodes
across an output, so a tapped session with graph optimization is not the model as it is served:
what is concluded from taps must be judged on an untapped session, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dlzoo.errors import ArgumentError, BundleError, ProviderError
from dlzoo.runtime.onnx_reader.onnx_header import read_onnx_header
from dlzoo.runtime.onnx_reader.onnx_nodes import GraphNode, OnnxNodes
from dlzoo.runtime.session.custom_ops import (
    KERNEL_PROVIDER,
    custom_ops_of,
    find_native_library,
)
from dlzoo.runtime.session.inference_session import INFORMING, SILENT, open_inference_session
from dlzoo.runtime.session.installation import load_onnxruntime
from dlzoo.runtime.session.ort_error import one_line_reason
from dlzoo.runtime.session.providers import require_provider, short_name
from dlzoo.runtime.session.run_settings import AS_WRITTEN, RunSettings

Arrays = Mapping[str, npt.NDArray[Any]]

#: Bytes of tapped values (with their references) that are held at a time.
MAX_TAPPED_BYTES = 2**30
#: A reference in float64, its float32, and the tapped value: bytes for each float32 element.
_BYTES_PER_ELEMENT = 16
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
}


class TappedModel:
    """An ONNX file, run whole, tapped or in parts; nothing is written to disk.

    Raises:
        BundleError: the file is damaged, unsafe or not understood.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_onnx_header(path)
        self.graph = OnnxNodes.read(path)
        self._last: tuple[object, Any] = (None, None)

    @cached_property
    def _weights(self) -> dict[str, Any]:
        """The large weights, as ONNX Runtime takes them, once for all sessions."""
        ort_value = load_onnxruntime().OrtValue
        weights = {}
        for name, tensor in self.graph.initializers.items():
            if tensor.has_stub:
                # Used where it lies in the mapped file, if it lies as the processor wants it.
                array = tensor.view()
                array = array if array.flags.aligned else array.copy()
                weights[name] = ort_value.ortvalue_from_numpy(array)
        return weights

    @cached_property
    def values(self) -> dict[str, tuple[str, tuple[int | str | None, ...]]]:
        """Every tensor of floats that a node makes, in graph order: (dtype, sizes as inferred).

        Of a model that ONNX Runtime refuses to open nothing is known: all count as float32.
        """
        made = [name for node in self.graph.nodes for name in node.outputs if name]
        try:
            session = self.open(made, AS_WRITTEN)
        except BundleError:
            return dict.fromkeys(made, ("float32", (None,)))
        floats = {
            output.name: (_DTYPES[output.type], tuple(output.shape))
            for output in session.get_outputs()
            if output.type in _DTYPES
        }
        return {name: floats[name] for name in made if name in floats}

    def open(self, values: Sequence[str], settings: RunSettings) -> Any:
        """An ``InferenceSession`` of the whole model with these values as further outputs.

        Raises:
            ProviderError: the provider is missing or did not load.
            BundleError: the model is not understood.
        """
        key = (tuple(values), repr(settings))
        if self._last[0] != key:
            self._last = (None, None)  # before the next one takes its memory
            session = self._open(self.graph.tapped(values), settings, self._weights)
            self._last = (key, session)
        return self._last[1]

    def open_informing(self, settings: RunSettings) -> None:
        """Open the untapped model once while ONNX Runtime tells on stderr what it does."""
        self._open(self.graph.tapped(), settings, self._weights, log_severity=INFORMING)

    def run(
        self, inputs: Arrays, values: Sequence[str], settings: RunSettings
    ) -> dict[str, Any]:
        """The model's outputs and these values.

        Raises:
            ArgumentError: it does not take these inputs.
            ProviderError: the provider failed at the work.
            BundleError: it cannot be run on them.
        """
        wanted = [*dict.fromkeys([*self.graph.outputs, *values])]
        return self._run(self.open(values, settings), inputs, wanted, settings)

    def run_alone(
        self,
        nodes: Sequence[GraphNode],
        inputs: Arrays,
        outputs: Sequence[str],
        settings: RunSettings,
    ) -> dict[str, Any]:
        """Run some nodes only, on inputs from elsewhere.

        Raises:
            BundleError: they cannot be run on these inputs.
            ProviderError: the provider failed at the work.
        """
        data = self.graph.extracted(nodes, inputs, outputs)
        read = {name for node in nodes for name in node.inputs} - set(inputs)
        weights = {name: self._weights[name] for name in read if name in self._weights}
        session = self._open(data, settings, weights)
        return self._run(session, inputs, list(outputs), settings)

    def chunks(
        self, values: Sequence[str], inputs: Arrays, max_bytes: int = MAX_TAPPED_BYTES
    ) -> list[list[str]]:
        """The values in runs of about ``max_bytes`` each, references and all; one at the least.

        A size that ONNX Runtime's shape inference leaves open counts as the largest value known.
        """
        symbols: dict[str, int] = {}
        for spec in self.header.inputs:
            if spec.name in inputs and len(spec.dims) == inputs[spec.name].ndim:
                sizes = zip(spec.dims, inputs[spec.name].shape, strict=True)
                symbols |= {dim: size for dim, size in sizes if isinstance(dim, str)}
        known: dict[str, int | None] = {}
        for name in values:
            dims = self.values[name][1]
            sizes_or_none = [d if isinstance(d, int) else symbols.get(str(d)) for d in dims]
            whole = [size for size in sizes_or_none if size is not None]
            known[name] = math.prod(whole) if len(whole) == len(dims) else None
        largest = max(
            [array.size for array in inputs.values()] + [n for n in known.values() if n]
        )
        chunks: list[list[str]] = []
        room = 0
        for name in values:
            size_bytes = _BYTES_PER_ELEMENT * (known[name] or largest)
            if not chunks or size_bytes > room:
                chunks.append([])
                room = max_bytes
            chunks[-1].append(name)
            room -= size_bytes
        return chunks

    def _open(
        self,
        data: bytes,
        settings: RunSettings,
        weights: Mapping[str, Any],
        log_severity: int = SILENT,
    ) -> Any:
        provider = require_provider(settings.provider)
        library = None
        if custom_ops_of(self.header) and provider.name == KERNEL_PROVIDER:
            library = find_native_library(settings.native_library)
        session = open_inference_session(
            self.path,
            settings,
            library=library,
            data=data,
            weights=weights,
            log_severity=log_severity,
        )
        loaded = [short_name(name) for name in session.get_providers()]
        if provider.name not in loaded:
            raise ProviderError(
                f"Provider {provider.name!r} was asked for, but its libraries did not load and "
                f"{self.path.name} would run on {', '.join(loaded)}. "
                'Run "dlzoo doctor" to see what is missing.'
            )
        return session

    def _run(
        self, session: Any, inputs: Arrays, wanted: list[str], settings: RunSettings
    ) -> dict[str, Any]:
        expected = [spec.name for spec in session.get_inputs()]
        if set(inputs) != set(expected):
            raise ArgumentError(
                f"{self.path.name} got inputs {sorted(inputs)}, expected {sorted(expected)}. "
                "Give exactly those."
            )
        feed = {name: np.require(array, requirements="C") for name, array in inputs.items()}
        try:
            outputs = session.run(wanted, feed)
        except Exception as error:
            reason = one_line_reason(error)
            if type(error).__name__ == "InvalidArgument":
                raise ArgumentError(
                    f"{self.path.name} does not take these inputs: {reason}. "
                    "Give arrays of the dtypes and shapes that the model declares."
                ) from None
            if settings.provider != "cpu":
                raise ProviderError(
                    f"Provider {settings.provider!r} failed while running {self.path.name}: "
                    f'{reason}. Try `provider="cpu"`.'
                ) from None
            raise BundleError(
                f"{self.path.name} cannot be run on these inputs: {reason}. "
                "Export it again with the sizes that you need."
            ) from None
        return dict(zip(wanted, outputs, strict=True))
