"""Golden sets hold float64 answers, honest noise floors, and NaN and Inf where they belong."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.reference.reference import compute_golden_set
from dlzoo.runtime.bundle.golden_set import NoiseFloor

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
    # The largest of three runs: at least this one, and no more than float32 can be off by.
    assert noise.rms >= np.sqrt(np.mean(error**2)) * 0.999
    assert noise.max >= np.abs(error).max() * 0.999
    assert 0 < noise.rms <= noise.max < 300 * UNIT_ROUNDOFF * np.abs(x).max()


Way = tuple[int, bool, int, bool]


class Spy(nn.Module):
    """Notes how it is run in float32: batch, channels_last, threads, oneDNN."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Way] = []

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            is_channels_last = x.is_contiguous(memory_format=torch.channels_last)
            has_onednn = bool(torch.backends.mkldnn.enabled)
            self.seen.append((len(x), is_channels_last, torch.get_num_threads(), has_onednn))
        return x * 2


@pytest.mark.parametrize("size", [8, 2], ids=["many elements", "few elements"])
def test_every_way_is_measured(size: int) -> None:
    threads = torch.get_num_threads()
    x = np.ones((2, 3, size, size), np.float32)
    spy = Spy().eval()
    golden = compute_golden_set("set", "ones", spy, {"x": x}, output_names=["y"])
    # One sample of many elements says enough; of few elements every one is needed.
    one_by_one = [(1, False, 1)] * (2 if size == 2 else 1)
    expected = [(2, False, threads), (2, True, threads), *one_by_one]
    ways = [(*way, True) for way in expected]
    if size == 2:
        ways += [(2, False, threads, True)] * 3  # sums in drawn orders
        ways += [(*way, False) for way in expected]
    assert spy.seen == ways
    assert torch.get_num_threads() == threads
    assert torch.backends.mkldnn.enabled
    assert golden.noise["y"] == NoiseFloor(rms=0.0, max=0.0)


def test_noise_floor_is_the_worst_way() -> None:
    class WorseOnOneThread(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            is_alone = x.dtype == torch.float32 and len(x) == 1
            return x + 0.25 if is_alone else x.clone()

    x = np.zeros((2, 5), np.float32)
    x[0, 0] = 1.0
    golden = compute_golden_set(
        "set", "ones", WorseOnOneThread().eval(), {"x": x}, output_names=["y"]
    )
    assert golden.noise["y"] == NoiseFloor(rms=0.25, max=0.25)


def test_fixed_batch_is_measured_without_single_samples() -> None:
    class TwoOnly(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(6).reshape(2, 3)[: len(x) * 10].reshape(x.shape)

    x = np.ones((2, 3), np.float32)
    golden = compute_golden_set("set", "ones", TwoOnly().eval(), {"x": x}, output_names=["y"])
    assert golden.reference["y"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_nan_and_inf_are_where_pytorch_puts_them() -> None:
    x = np.array([[np.nan, 1, -1], [np.inf, -np.inf, 0.5]], np.float32)
    golden = compute_golden_set(
        "set", "NaN", nn.Softplus().eval(), {"x": x}, output_names=["y"]
    )
    y = golden.reference["y"]
    assert np.isnan(y[0, 0]) and y[1, 0] == np.inf and y[1, 1] == 0.0
    assert golden.kind == "NaN"
    assert 0 < golden.noise["y"].max < 1e-6, "over the finite elements alone"


def test_float32_kernel_that_is_wrong_on_inf_does_not_become_the_reference() -> None:
    """PyTorch's vectorized float32 GELU gives NaN at +Inf; float64 gives +Inf."""
    x = np.full((1, 64), np.inf, np.float32)
    golden = compute_golden_set("set", "+Inf", nn.GELU().eval(), {"x": x}, output_names=["y"])
    assert (golden.reference["y"] == np.inf).all()
    assert golden.kind.startswith("+Inf (PyTorch's float32 and float64 differ in ")


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


def test_overflow_of_float32_becomes_the_reference_and_is_said() -> None:
    x = np.array([[3e38, 3.0]], np.float32)
    golden = compute_golden_set("set", "large", Square().eval(), {"x": x}, output_names=["y"])
    assert golden.reference["y"].tolist() == [[np.inf, 9.0]]
    assert golden.kind == "large (float32 overflows in 1 of 2 outputs)"


def test_a_finite_sample_is_judged_apart_from_its_neighbours_nan_and_inf() -> None:
    x = np.full((4, 64), 1.0, np.float32)
    x[0, 0], x[1], x[2, :2] = np.nan, np.inf, 3e38
    net = nn.Sequential(Square(), nn.GELU()).eval()
    golden = compute_golden_set("set", "mixed", net, {"x": x}, output_names=["y"])
    y = golden.reference["y"]
    assert np.isnan(y[0, 0]) and np.isfinite(y[0, 1:]).all()
    assert (y[1] == np.inf).all(), "float64's, though PyTorch's float32 GELU gives NaN"
    assert not np.isfinite(y[2, :2]).any(), "float32's: 9e76 is no float32"
    assert np.isfinite(y[3]).all() and 0 < golden.noise["y"].max < 1e-6
    assert "(float32 overflows in 2 of 256 outputs)" in golden.kind
    assert "(PyTorch's float32 and float64 differ in " in golden.kind


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
