"""A PyTorch network as the reference for its exported graph."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.diff.traced_network import TracedNetwork, pair_values, trace_network
from dlzoo.export.diff.traced_values import TracedValues
from dlzoo.runtime.diff.culprit import Place
from dlzoo.runtime.diff.graph_values import Matching
from dlzoo.runtime.diff.reference import place_of_node, weight_details
from dlzoo.runtime.diff.value_checks import ReferenceValues
from dlzoo.runtime.onnx_reader.onnx_header import OnnxHeader
from dlzoo.runtime.onnx_reader.onnx_nodes import GraphNode
from dlzoo.runtime.session.tapped_session import TappedModel

Array = npt.NDArray[Any]

#: torch.export specializes sizes 0 and 1.
_MIN_TRACED_SIZE = 2


@dataclass
class NetworkReference:
    """A PyTorch network, traced as its graph was, implementing ``Reference``.

    ``target`` and ``lowerings`` are those that the graph was exported with.
    """

    module: nn.Module
    header: OnnxHeader
    example: Mapping[str, Array]
    title: str
    target: str = "ort-cpu"
    lowerings: Mapping[str, str] | None = None
    names_are_sure: bool = field(default=True, init=False)

    @cached_property
    def _dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Input -> its open axes -> their symbols, as the graph declares them."""
        return {
            spec.name: {i: dim for i, dim in enumerate(spec.dims) if isinstance(dim, str)}
            for spec in self.header.inputs
        }

    @cached_property
    def _output_names(self) -> list[str]:
        return [spec.name for spec in self.header.outputs]

    @cached_property
    def _example_tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for spec in self.header.inputs:
            x = torch.from_numpy(np.ascontiguousarray(self.example[spec.name]))
            for axis in self._dynamic_axes[spec.name]:
                if x.shape[axis] < _MIN_TRACED_SIZE:
                    x = torch.cat([x, x], axis)
            tensors[spec.name] = x
        return tensors

    @cached_property
    def network(self) -> TracedNetwork:
        """The network as it was traced."""
        return trace_network(
            self.module,
            self._example_tensors,
            output_names=self._output_names,
            opset=self.header.opset,
            dynamic_axes=self._dynamic_axes,
            target=self.target,
            lowerings=self.lowerings,
        )

    def match(self, candidate: TappedModel) -> Matching:
        """By the names that the exporter took from the traced operators."""
        return Matching(pairs=pair_values(self.network, candidate.graph), by="traced operator")

    def values_on(
        self, inputs: Mapping[str, Array], candidate: TappedModel
    ) -> ReferenceValues:
        """PyTorch's own values."""
        return TracedValues(self.network, [inputs[spec.name] for spec in self.header.inputs])

    def place(self, partner: str, node: GraphNode | None) -> Place:
        """As the trace says."""
        value = self.network.values.get(partner)
        if value is None:
            return place_of_node(node)
        return Place(
            module_path=value.module_path,
            source_line=value.source_line,
            operator=value.operator,
        )

    def details(
        self, node: GraphNode, partner: str, candidate: TappedModel
    ) -> tuple[str, ...]:
        """Against the module's weights, under the names that they have in its state dict."""
        stored = self.module.state_dict(keep_vars=True)
        arrays = {
            name: stored[name].detach().cpu().numpy() for name in node.inputs if name in stored
        }
        return weight_details(node, candidate, arrays, "the network's")

    def twin(self) -> TappedModel | None:
        """The network exported once more."""
        return self._twin

    @cached_property
    def _twin(self) -> TappedModel | None:
        try:
            graph = onnx_from_torch(
                self.module,
                self._example_tensors,
                output_names=self._output_names,
                opset=self.header.opset,
                dynamic_axes=self._dynamic_axes,
                target=self.target,
                lowerings=self.lowerings,
            )
        except ExportError:
            return None
        # The file is mapped, and stays readable after its name is gone; where it has to keep its
        # name (Windows), it stays in the system's folder for such.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "model.onnx"
            graph.save(path)
            return TappedModel(path)
