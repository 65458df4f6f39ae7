"""Logarithms of sums of exponentials: no overflow and no lost tail where PyTorch has none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.lowering.samples import Elementwise
from dlzoo.export.reference.reference import compute_golden_set

SHAPE = (2, 7, 6, 5)
RHO2_LIMIT, RHOMAX_LIMIT = 2.0, 4.0
UNIT_ROUNDOFF = 2.0**-24


def scaled_inputs() -> dict[str, Tensor]:
    normal = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return {
        "normal": normal,
        "normal x 50": normal * 50.0,
        "normal x 1e-5": normal * 1e-5,
        "100": normal.sign() * 100.0,
        "1e4": normal.sign() * 1e4,
        "one value": torch.full(SHAPE, -30.0),
    }


def session_of(module: nn.Module, opset: int) -> onnxruntime.InferenceSession:
    graph = onnx_from_torch(
        module,
        {"x": torch.zeros(SHAPE)},
        output_names=["y"],
        opset=opset,
        dynamic_axes={"x": {0: "batch"}},
    )
    return onnxruntime.InferenceSession(ir.to_proto(graph.model).SerializeToString())


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_sigmoid": F.logsigmoid,
    "binary cross entropy": lambda x: F.binary_cross_entropy_with_logits(
        x, torch.sigmoid(x.flip(1)), reduction="none"
    ),
    "multilabel soft margin": lambda x: F.multilabel_soft_margin_loss(
        x, torch.ones_like(x), reduction="none"
    ),
    "log1p": lambda x: torch.log1p(x.abs()),
    "log1p of -1 to 0": lambda x: torch.log1p(x.abs().clamp(max=0.999).neg()),
    "expm1": lambda x: torch.expm1(x.clamp(max=80.0)),
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(1)),
    "logaddexp2": lambda x: torch.logaddexp2(x, x.flip(1)),
    "logcumsumexp": lambda x: torch.logcumsumexp(x, 1),
    "logcumsumexp, last axis": lambda x: torch.logcumsumexp(x, -1),
}


@pytest.mark.parametrize("opset", [11, 13, 17, 20, 25])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_exact_at_every_scale(name: str, opset: int) -> None:
    module = Elementwise(FUNCTIONS[name]).eval()
    session = session_of(module, opset)
    for kind, x in scaled_inputs().items():
        golden = compute_golden_set(kind, kind, module, {"x": x.numpy()}, output_names=["y"])
        y, noise = golden.reference["y"], golden.noise["y"]
        (got,) = session.run(None, {"x": x.numpy()})
        assert np.isfinite(got).all() and np.isfinite(y).all(), kind
        assert noise.signal_rms is not None and noise.signal_max is not None
        error = got - y
        rho2 = np.sqrt(np.mean(error**2)) / max(
            noise.rms, UNIT_ROUNDOFF * noise.signal_rms, 1e-44
        )
        rhomax = np.abs(error).max() / max(noise.max, UNIT_ROUNDOFF * noise.signal_max, 1e-44)
        assert rho2 <= RHO2_LIMIT and rhomax <= RHOMAX_LIMIT, (kind, rho2, rhomax)


@pytest.mark.parametrize(
    "name", ["log_sigmoid", "log1p", "logaddexp", "logaddexp2", "logcumsumexp"]
)
def test_infinities_stay_where_pytorch_has_them(name: str) -> None:
    infinity = float("inf")
    x = torch.zeros(SHAPE)
    x[0, :3, 0, 0] = torch.tensor([infinity, -infinity, infinity])
    x[0, -3:, 0, 0] = torch.tensor([infinity, -infinity, -infinity])
    x[1, :, 1, 1] = -infinity
    x[1, 2, 2, 2] = float("nan")
    module = Elementwise(FUNCTIONS[name]).eval()
    (got,) = session_of(module, 20).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(got, module(x).numpy(), rtol=1e-6, atol=1e-6)


def test_cumulative_sum_over_an_open_axis_is_refused() -> None:
    with pytest.raises(ExportError, match="needs an axis of known size"):
        onnx_from_torch(
            Elementwise(FUNCTIONS["logcumsumexp"]).eval(),
            {"x": torch.zeros(SHAPE)},
            output_names=["y"],
            dynamic_axes={"x": {1: "length"}},
        )
