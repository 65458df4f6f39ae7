"""Means, variances and normalizations over large images: as exact as PyTorch's own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.graph.onnx_graph import OnnxGraph
from dlzoo.export.lowering.costs import ERROR_LIMIT
from dlzoo.export.lowering.samples import Reduction

#: float32's. Source: docs/DESIGN.md, 6.3.
UNIT_ROUNDOFF = 2.0**-24
LARGE = (2, 8, 150, 112)  # 150 is cut into 10 rows of 15


class Standardized(nn.Module):
    """A normalization that somebody wrote out, as timm's EvoNorm is."""

    def __init__(self, dims: tuple[int, ...] = (2, 3), correction: int = 1) -> None:
        super().__init__()
        self.dims, self.correction = dims, correction

    def forward(self, x: Tensor) -> Tensor:
        variance = x.var(self.dims, keepdim=True, correction=self.correction)
        return x / (variance + 1e-5).sqrt()


def images(shape: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(shape, generator=generator)
    colors = torch.randn((*shape[:2], *[1] * (len(shape) - 2)), generator=generator)
    return {
        "normal": normal,
        "off zero": normal + 3.0,
        "one color": colors.expand(shape).contiguous(),
        "nearly one color": colors + 1e-3 * normal,
    }


def export(
    module: nn.Module,
    shape: tuple[int, ...],
    *,
    opset: int = 20,
    open_axes: dict[int, str] | None = None,
    asked: dict[str, str] | None = None,
) -> OnnxGraph:
    return onnx_from_torch(
        module.eval(),
        {"x": torch.zeros(shape)},
        output_names=["y"],
        opset=opset,
        dynamic_axes={"x": {0: "batch"} if open_axes is None else open_axes},
        lowerings=asked or {},
    )


def error_ratios(graph: OnnxGraph, module: nn.Module, path: Path) -> dict[str, float]:
    """By kind of image: the RMS of ONNX Runtime's error, as a multiple of PyTorch's own."""
    graph.save(path)
    session = onnxruntime.InferenceSession(path)
    ratios = {}
    for kind, x in images(LARGE).items():
        (got,) = session.run(None, {"x": x.numpy()})
        with torch.no_grad():
            own = module(x).double().numpy()
            exact = copy.deepcopy(module).double()(x.double()).numpy()
        assert got.shape == exact.shape
        floor = max(rms(own - exact), UNIT_ROUNDOFF * rms(exact))
        ratios[kind] = rms(got - exact) / floor
    return ratios


def rms(e: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(e))))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "mean": lambda: Reduction(torch.mean),
    "global average pooling": lambda: nn.AdaptiveAvgPool2d(1),
    "variance": Standardized,
    "variance, biased": lambda: Standardized(correction=0),
    "group norm": lambda: nn.GroupNorm(2, 8),
    "instance norm": lambda: nn.InstanceNorm2d(8, affine=True),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("opset", [11, 17, 20])
def test_large_images_are_as_exact_as_in_pytorch(
    name: str, opset: int, tmp_path: Path
) -> None:
    module = MODULES[name]().eval()
    ratios = error_ratios(export(module, LARGE, opset=opset), module, tmp_path / "model.onnx")
    one_color = ratios.pop("one color")
    assert max(ratios.values()) <= ERROR_LIMIT, ratios
    # What is left of one color is nothing but error, and a normalization divides that by sqrt(eps).
    assert one_color <= (12.0 if "norm" in name else ERROR_LIMIT), one_color


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("mean", {"mean": "native"}),
        ("variance", {"variance": "decomposed:one_step"}),
        ("group norm", {"group_norm": "decomposed:affine"}),
        ("instance norm", {"instance_norm": "native"}),
    ],
)
def test_in_one_step_they_are_not(name: str, asked: dict[str, str], tmp_path: Path) -> None:
    module = MODULES[name]().eval()
    ratios = error_ratios(export(module, LARGE, asked=asked), module, tmp_path / "model.onnx")
    assert max(ratios.values()) > 10 * ERROR_LIMIT, ratios


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    "axes", [{0: "batch", 2: "height", 3: "width"}, {0: "batch", 3: "width"}]
)
def test_open_sizes(name: str, axes: dict[int, str], tmp_path: Path) -> None:
    module = MODULES[name]().eval()
    graph = export(module, (2, 8, 150, 20), open_axes=axes)
    graph.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for size in ((1, 150, 31), (3, 150, 7), (2, 150, 300)):
        height = size[1] if 2 not in axes else size[1] - 13
        x = 1.0 + torch.randn(size[0], 8, height, size[2])
        (got,) = session.run(None, {"x": x.numpy()})
        expected = copy.deepcopy(module).double()(x.double()).detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6, err_msg=str(size))


@pytest.mark.parametrize(
    ("module", "shape", "num_means"),
    [
        (Reduction(torch.mean), (2, 8, 32, 32), 1),
        (Reduction(torch.mean), (2, 8, 33, 32), 2),
        (Reduction(torch.mean), (2, 8, 300, 16), 3),
        (nn.AdaptiveAvgPool2d(1), (2, 8, 7, 7), 1),
        (Standardized(), (2, 8, 7, 7), 2),
        # One axis alone: ONNX Runtime knows layer normalization by it.
        (Standardized((3,)), (2, 8, 7, 512), 2),
        (nn.GroupNorm(2, 8), (2, 8, 14, 14), 0),
        (nn.InstanceNorm2d(8), (2, 8, 4, 4), 0),
        (nn.InstanceNorm2d(8), (2, 8, 14, 14), 1),
    ],
    ids=str,
)
def test_small_means_stay_one_node(
    module: nn.Module, shape: tuple[int, ...], num_means: int
) -> None:
    assert export(module, shape).num_nodes_by_op.get("ReduceMean", 0) == num_means


@pytest.mark.parametrize(("num_channels", "num_means"), [(256, 2), (257, 1)])
def test_open_sizes_behind_many_channels_are_small(num_channels: int, num_means: int) -> None:
    graph = export(
        Reduction(torch.mean),
        (2, num_channels, 9, 9),
        open_axes={0: "batch", 2: "height", 3: "width"},
    )
    assert graph.num_nodes_by_op["ReduceMean"] == num_means


def test_every_form_of_the_call() -> None:
    class Forms(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            variance, mean = torch.var_mean(x, (1, 2, 3))
            return (
                x.mean((2, 3)),
                x.mean((-1, -3), keepdim=True),
                x.mean(1),
                x.mean(()),
                x.long().mean((2, 3), dtype=torch.float32),
                x.var((2, 3), unbiased=False),
                x.var(-1),
                x.var(),
                mean,
                variance,
                x[0, 0, 0, 0].mean(()),
            )

    module = Forms().eval()
    names = [f"y{i}" for i in range(11)]
    x = 1.0 + torch.randn(2, 3, 40, 33)
    graph = onnx_from_torch(
        module, {"x": x}, output_names=names, dynamic_axes={"x": {0: "batch"}}
    )
    proto = ir.to_proto(graph.model)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    for name, got, expected in zip(
        names, session.run(None, {"x": x.numpy()}), module(x), strict=True
    ):
        assert got.shape == tuple(expected.shape), name
        np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=5e-6, err_msg=name)
