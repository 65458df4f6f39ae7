"""Golden sets hold float64 answers, honest noise floors, and NaN and Inf where they belong."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.reference.reference import compute_golden_set

UNIT_ROUNDOFF = 2.0**-24


def test_reference_and_noise_floor_of_a_layer_that_numpy_can_do() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(300, 7).eval()
    x = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32)
    golden = compute_golden_set("set", "normal x1", layer, {"x": x}, output_names=["y"])
    weight, bias = (p.detach().numpy().astype(np.float64) for p in layer.parameters())
    expected = x.astype(np.float64) @ weight.T + bias
    y = golden.reference["y"]
    assert y.dtype == np.float64
    assert np.abs(y - expected).max() < 1e-14
    assert (golden.name, golden.kind, golden.batch) == ("set", "normal x1", 3)
    with torch.no_grad():
        error = layer(torch.from_numpy(x)).numpy() - expected
    noise = golden.noise["y"]
    assert noise.plain_rms is not None
    # About PyTorch's own error, and no more than float32 can be off by.
    assert noise.plain_rms == pytest.approx(np.sqrt(np.mean(error**2)))
    assert 0.1 * noise.rms < noise.plain_rms < 3 * noise.rms
    assert 0 < noise.rms <= noise.max < 300 * UNIT_ROUNDOFF * np.abs(x).max()


class Spy(nn.Module):
    """Notes how it is run: the dtype, and whether its samples came together and as they lay."""

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append((x.dtype, tuple(x.shape), x.stride()))
        return x * 1.1


SEEN: list[tuple[torch.dtype, tuple[int, ...], tuple[int, ...]]] = []


def test_the_network_runs_as_it_is_called() -> None:
    """Nothing is regrouped: samples may depend on each other, code may want contiguous tensors."""
    SEEN.clear()
    x = np.ones((2, 3, 8, 8), np.float32)
    compute_golden_set("set", "ones", Spy().eval(), {"x": x}, output_names=["y"])
    assert {(shape, stride) for _, shape, stride in SEEN} == {((2, 3, 8, 8), (192, 64, 8, 1))}
    assert [dtype for dtype, _, _ in SEEN] == [
        torch.float32,
        torch.float64,
        *[torch.float32] * 3,
    ]


def test_samples_that_depend_on_each_other_have_a_small_floor() -> None:
    """Running them one by one would make the floor as large as the signal."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
    ).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    noise = compute_golden_set("set", "normal", net, {"x": x}, output_names=["y"]).noise["y"]
    share = noise.share_of_signal
    assert share is not None and 1e-8 < share < 1e-6


def test_a_mask_of_constants_is_no_signal() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).masked_fill(torch.arange(8) > 3, -1e9)

    torch.manual_seed(0)
    x = np.ones((2, 6), np.float32)
    golden = compute_golden_set("set", "ones", Masked().eval(), {"x": x}, output_names=["y"])
    noise, y = golden.noise["y"], golden.reference["y"]
    assert noise.signal_max == pytest.approx(np.abs(y[:, :4]).max(), rel=1e-3)
    assert noise.signal_rms == pytest.approx(np.sqrt(np.sum(y[:, :4] ** 2) / y.size), rel=1e-3)
    assert noise.rms < 1e-5


def test_fixed_batch_is_measured_without_single_samples() -> None:
    class TwoOnly(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(6).reshape(2, 3)[: len(x) * 10].reshape(x.shape)

    x = np.ones((2, 3), np.float32)
    golden = compute_golden_set("set", "ones", TwoOnly().eval(), {"x": x}, output_names=["y"])
    assert golden.reference["y"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_nan_and_inf_are_answered_by_pytorch_as_it_is() -> None:
    x = np.array([[np.nan, 1, -1], [np.inf, -np.inf, 0.5]], np.float32)
    golden = compute_golden_set(
        "set", "NaN", nn.Softplus().eval(), {"x": x}, output_names=["y"]
    )
    y = golden.reference["y"]
    assert np.isnan(y[0, 0]) and y[1, 0] == np.inf and y[1, 1] == 0.0
    assert golden.kind == "NaN" and not golden.is_finite


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


def test_overflow_of_float32_becomes_the_reference_and_is_said() -> None:
    x = np.array([[3e38, 3.0]], np.float32)
    golden = compute_golden_set("set", "large", Square().eval(), {"x": x}, output_names=["y"])
    assert golden.reference["y"].tolist() == [[np.inf, 9.0]]
    assert golden.kind == "large (float32 overflows in 1 of 2 outputs)"


def test_errors_too_small_to_square_still_count() -> None:
    x = np.array([[1e-30, 3e-30, 7e-31]], np.float32)
    net = nn.Sequential(nn.Linear(3, 4, bias=False)).eval()
    noise = compute_golden_set("set", "tiny", net, {"x": x}, output_names=["y"]).noise["y"]
    assert 0 < noise.rms <= noise.max < 1e-36


def test_training_mode_is_refused(small_net: nn.Module) -> None:
    small_net.train()
    x = np.zeros((1, 3, 16, 16), np.float32)
    with pytest.raises(ExportError, match=r"^SmallNet is in training mode, .* Call eval\(\)"):
        compute_golden_set("set", "zeros", small_net, {"x": x}, output_names=["y"])


def test_outputs_that_are_not_all_named_are_refused(small_net: nn.Module) -> None:
    x = np.zeros((1, 3, 16, 16), np.float32)
    with pytest.raises(
        ExportError, match=r"^SmallNet gives 1 tensors, but 2 outputs are named"
    ):
        compute_golden_set("set", "zeros", small_net, {"x": x}, output_names=["y", "z"])
