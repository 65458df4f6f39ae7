"""The smallest change of each weight tensor that fails: predicted, and found again by trying."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlzoo.export.reference.power import measure_power, spread_sample
from dlzoo.export.reference.reference import compute_golden_set, run_in_float32
from dlzoo.export.reference.sensitivity import measure_effects
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.proof.compare import UNIT_ROUNDOFFS, compare_outputs
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS
from dlzoo.runtime.proof.report import Power


def small_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    for part in net:
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(std=0.3)
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.normal_(part.bias, std=0.3)
    return net.eval()


def golden_of(module: nn.Module, x: np.ndarray, names: tuple[str, ...] = ("y",)) -> GoldenSet:
    return compute_golden_set("set", "normal x1", module, {"x": x}, output_names=names)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def power_of(module: nn.Module, *sets: GoldenSet, dtype: str = "float32") -> Power:
    return measure_power(
        module,
        sets,
        dtypes=dict.fromkeys(sets[0].reference, dtype),
        limits=DEFAULT_LIMITS,
        seed=0,
    )


def fails(module: nn.Module, golden: GoldenSet, name: str, change: float) -> bool:
    """Whether a relative change with random signs in one tensor fails the comparison."""
    tensor = module.state_dict()[name]
    before = tensor.clone()
    signs = (
        torch.randint(0, 2, tensor.shape, generator=torch.Generator().manual_seed(7)) * 2 - 1
    )
    tensor.mul_(1 + change * signs)
    try:
        inputs = {"x": torch.from_numpy(golden.inputs["x"])}
        outputs = run_in_float32(module, inputs, ["y"])
    finally:
        tensor.copy_(before)
    return not compare_outputs(
        outputs,
        golden,
        dtypes={"y": "float32"},
        unit_roundoff=UNIT_ROUNDOFFS["float32"],
        limits=DEFAULT_LIMITS,
    )


def test_the_prediction_holds_for_every_tensor() -> None:
    net = small_net()
    golden = golden_of(net, normal(1, 3, 16, 16))
    power = power_of(net, golden)
    assert (power.detected, power.tried, power.sampled_of) == (12, 12, 12)
    for name, change in power.smallest_changes.items():
        assert not fails(net, golden, name, change / 10), name
        assert fails(net, golden, name, change * 10), name


def test_the_network_comes_back_as_it_was() -> None:
    net = small_net()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    needed = [p.requires_grad for p in net.parameters()]
    power_of(net, golden_of(net, normal(1, 3, 16, 16)))
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert [p.requires_grad for p in net.parameters()] == needed
    assert all(p.grad is None for p in net.parameters())
    assert net[4].weight is None and net[4].bias is None


def test_a_bias_before_a_normalization_has_no_effect() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)).eval()
    power = power_of(net, golden_of(net, normal(1, 3, 9, 9)))
    assert power.without_effect == ("0.bias",)
    assert (power.detected, power.tried, power.sampled_of) == (1, 1, 2)


def test_a_network_that_died_is_blind() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        net[0].bias.fill_(-1e6)
    power = power_of(net, golden_of(net, normal(2, 4)))
    assert power.blind_outputs == ("y",)


class ZeroGates(nn.Module):
    """Residual branches behind scales of zero, as they are before training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 4)
        self.branches = nn.ModuleList(nn.Linear(6, 6) for _ in range(6))
        self.gates = nn.Parameter(torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for gate, branch in zip(self.gates, self.branches, strict=True):
            x = x + gate * branch(x).relu()
        y: Tensor = self.last(x)
        return y


def test_branches_behind_zeros_have_no_effect_and_are_named() -> None:
    torch.manual_seed(0)
    net = ZeroGates().eval()
    power = power_of(net, golden_of(net, normal(2, 6)))
    branches = [f"branches.{i}.{kind}" for i in range(6) for kind in ("weight", "bias")]
    assert power.blind_outputs == ()
    assert power.without_effect == tuple(branches)
    assert (power.detected, power.tried, power.sampled_of) == (5, 5, 17)


class Detached(nn.Module):
    """The first layer lies behind an operator without a derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.first(x)
        out: Tensor = self.second(y)
        return out


def test_what_has_no_derivative_is_tried() -> None:
    torch.manual_seed(0)
    net = Detached().eval()
    power = power_of(net, golden_of(net, normal(2, 6)))
    assert (power.detected, power.tried) == (4, 4)
    assert power.smallest_changes["first.weight"] == 0.1
    assert power.smallest_changes["second.weight"] < 1e-4


class WholeNumbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).argmax(1)


def test_whole_numbers_hide_small_errors() -> None:
    torch.manual_seed(0)
    net = WholeNumbers().eval()
    golden = golden_of(net, normal(1, 6))
    power = power_of(net, golden, dtype="int64")
    assert power.detected < power.tried and power.blind_outputs == ("y",)
    # A gross change turns some of the answers: the tensors have an effect.
    assert power.without_effect == ()


class Thresholds(nn.Module):
    """Its first layer lies behind comparisons, which few inputs are near to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second((self.first(x) > 0).to(x.dtype))
        return y


def test_what_is_tried_is_tried_on_every_set() -> None:
    torch.manual_seed(0)
    net = Thresholds().eval()
    far = golden_of(net, 50 * normal(1, 6))
    assert "first.bias" in power_of(net, far).missed
    power = power_of(net, far, golden_of(net, 0.1 * normal(8, 6)))
    assert (power.detected, power.tried) == (4, 4)


class TwoHeads(nn.Module):
    """Each tensor reaches one of two outputs; the second's weights hardly matter."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Linear(6, 4), nn.Linear(6, 4), scale

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), 1.0 + self.scale * self.b(x)


@pytest.mark.parametrize(("scale", "blind"), [(1.0, ()), (1e-7, ("two",))])
def test_every_output_is_proved_by_itself(scale: float, blind: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    net = TwoHeads(scale).eval()
    golden = golden_of(net, normal(2, 6), ("one", "two"))
    assert power_of(net, golden).blind_outputs == blind


def test_the_second_set_shows_what_the_first_does_not() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.gated = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) + torch.relu(x.abs().amax() - 10) * self.gated(x)

    torch.manual_seed(0)
    net = Gate().eval()
    sets = [golden_of(net, normal(1, 6)), golden_of(net, 50 * normal(2, 6))]
    assert power_of(net, *sets).detected == 4


def test_a_tensor_of_zeros_is_judged_by_what_its_elements_would_do() -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 4).eval()
    nn.init.zeros_(net.bias)
    power = power_of(net, golden_of(net, normal(2, 6)))
    assert (power.detected, power.tried) == (2, 2)


def test_running_statistics_follow_from_the_affine_parameters() -> None:
    """The closed form against finite differences in float64."""
    net = small_net()
    x = torch.from_numpy(normal(1, 3, 16, 16))
    effects = measure_effects(net, {"x": x}, output_names=["y"], seed=0)["y"]
    net.double()
    with torch.no_grad():
        y = net(x.double())
        for name in ("1.running_mean", "1.running_var", "4.running_mean", "4.running_var"):
            tensor = net.state_dict()[name]
            before, squares, trials = tensor.clone(), 0.0, 40
            for seed in range(trials):
                generator = torch.Generator().manual_seed(seed)
                signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
                tensor.copy_(before * (1 + 1e-5 * signs))
                squares += float(((net(x.double()) - y) / 1e-5).square().mean())
                tensor.copy_(before)
            assert effects[name] == pytest.approx((squares / trials) ** 0.5, rel=0.6), name


def test_a_sample_is_spread_and_drawn() -> None:
    names = [str(n) for n in range(100)]
    sample = spread_sample(names, 10, 0)
    assert sample[0] == "0" and sample[-1] == "99" and len(set(sample)) == 10
    assert sample == spread_sample(names, 10, 0) != spread_sample(names, 10, 1)
    assert spread_sample(names[:5], 10, 0) == names[:5]
