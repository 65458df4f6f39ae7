"""A network as it is taken in and exported, and its graph's answers beside PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.reference.float64_arithmetic import compute_in_float64
from dlzoo.zoo.module_state import in_eval_mode, state_restored
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.module_call import call_module
from dlzoo.zoo.sources.source import SourceOptions

IMAGE = InputSpec(name="x", shape=(1, 3, 8, 8))


@dataclass(frozen=True)
class Exported:
    """The graph's inputs by name, and what the user is told of the network."""

    inputs: tuple[str, ...]
    notes: tuple[str, ...]


def export_and_compare(
    module: nn.Module, folder: Path, *specs: InputSpec, batches: tuple[int, ...] = (1, 3)
) -> Exported:
    """Export a network with an open batch; its graph must give PyTorch's answers, run after run."""
    specs = specs or (IMAGE,)
    source = load_source(module, SourceOptions(inputs=specs))
    network, notes = source.network, list(source.notes)
    with in_eval_mode(network, notes):
        graph = onnx_from_torch(
            network,
            {spec.name: spec.example((2, *spec.shape[1:])) for spec in specs},
            output_names=source.output_names,
            dynamic_axes={spec.name: {0: "batch"} for spec in specs},
        )
        graph.save(folder / "model.onnx")
        session = ort.InferenceSession(
            folder / "model.onnx", providers=["CPUExecutionProvider"]
        )
        for batch in batches:
            inputs = {spec.name: _drawn(spec, batch) for spec in specs}
            given = {name: x.clone() for name, x in inputs.items()}
            with torch.no_grad(), state_restored(network):
                expected = call_module(network, inputs, source.output_names)
            exact = compute_in_float64(network, inputs, source.output_names)
            assert all(torch.equal(inputs[name], x) for name, x in given.items())
            arrays = {name: x.numpy() for name, x in inputs.items()}
            for name, got in zip(source.output_names, session.run(None, arrays), strict=True):
                _assert_close(got, expected[name].numpy())
                _assert_close(got, exact[name].numpy())
    return Exported(tuple(spec.name for spec in graph.inputs), tuple(notes))


def _drawn(spec: InputSpec, batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, *spec.shape[1:])
    if spec.dtype == "float32":
        return torch.randn(shape, generator=generator)
    drawn = torch.randint(spec.low, spec.high + 1, shape, generator=generator)
    return drawn.to(getattr(torch, spec.dtype))


def _assert_close(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
