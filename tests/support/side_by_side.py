"""Many functions of the same inputs, exported together and compared with PyTorch one by one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.graph.valid_nodes import invalid_nodes

Function = Callable[..., Tensor]
#: float32 sums of at most a few hundred products of about 1.
SMALL_ERROR = 1e-5


class SideBySide(nn.Module):
    """Gives what each function makes of the inputs."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        super().__init__()
        self.functions = dict(functions)
        self.parts = nn.ModuleList(f for f in functions.values() if isinstance(f, nn.Module))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        given = [x] if mask is None else [x, mask]
        return [function(*given) for function in self.functions.values()]


def wrong_functions(
    functions: Mapping[str, Function],
    inputs: Mapping[str, Tensor],
    path: Path,
    *,
    opset: int,
    open_axes: Mapping[int, str] | None = None,
    sizes: Sequence[tuple[int, ...]] = (),
) -> list[str]:
    """Export the functions at an opset; names those whose answers differ from PyTorch's.

    Args:
        functions: of the inputs, by name.
        inputs: ``x``, and maybe ``mask``; axis 0 counts samples.
        path: a folder to write into.
        opset: to export at; every node must be valid there.
        open_axes: of every input; the batch if absent.
        sizes: shapes of ``x`` to compare at; batches of 1 to 3 if absent.
    """
    module = SideBySide(functions).eval()
    axes = dict(open_axes or {0: "batch"})
    graph = onnx_from_torch(
        module,
        dict(inputs),
        output_names=[f"y{number}" for number in range(len(functions))],
        opset=opset,
        dynamic_axes=dict.fromkeys(inputs, axes),
    )
    assert list(invalid_nodes(graph.model)) == []
    graph.save(path / "model.onnx")
    onnx.checker.check_model(onnx.load(path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(path / "model.onnx")
    shape = inputs["x"].shape
    wrong = []
    for size in sizes or [(batch, *shape[1:]) for batch in (1, 2, 3)]:
        drawn = {
            name: _drawn(x, size if name == "x" else (size[0], *x.shape[1:]))
            for name, x in inputs.items()
        }
        with torch.no_grad():
            expected = module(**{name: x.clone() for name, x in drawn.items()})
        got = session.run(None, {name: x.numpy() for name, x in drawn.items()})
        for name, y, t in zip(functions, got, expected, strict=True):
            y_torch = t.numpy()
            if (y.dtype, y.shape) != (y_torch.dtype, y_torch.shape):
                wrong.append(f"{name} at {size}: {y.dtype}{y.shape}")
            elif not np.allclose(
                y.astype(np.float64),
                y_torch.astype(np.float64),
                rtol=SMALL_ERROR,
                atol=SMALL_ERROR,
                equal_nan=True,
            ):
                wrong.append(f"{name} at {size}")
    return wrong


def _drawn(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if like.dtype == torch.bool:
        return torch.rand(shape, generator=generator) > 0.5
    if not like.dtype.is_floating_point:
        lowest = 0 if like.dtype == torch.uint8 else -3
        return torch.randint(lowest, 5, shape, generator=generator).to(like.dtype)
    return torch.randn(shape, generator=generator).to(like.dtype)
