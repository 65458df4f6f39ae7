"""Faults are small, hit one tensor at a time, and leave no trace."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import ExportError
from dlzoo.export.reference.faults import iter_faulty_outputs, num_tensors_to_try
from dlzoo.export.reference.float32_ways import run_in_float32

X = {"x": np.ones((1, 3, 16, 16), np.float32)}


def state_bits(module: nn.Module) -> dict[str, bytes]:
    return {
        name: value.reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, value in module.state_dict().items()
    }


class Recorder(nn.Module):
    """Hands out its own tensors, so that a fault in any of them can be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(50, 40) * 3.0)
        self.float16 = nn.Parameter(torch.randn(100).half())
        self.brain = nn.Parameter(torch.randn(100).bfloat16())
        self.register_buffer("float64", torch.randn(100, dtype=torch.float64))
        self.register_buffer("zeros", torch.tensor([0.0, -0.0, 0.0]))
        self.register_buffer("count", torch.tensor(5))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.weight, self.float16, self.brain, self.float64, self.zeros


NAMES = ["weight", "float16", "brain", "float64", "zeros"]


def test_fault_is_a_thousandth_of_one_tensor_and_of_nothing_else() -> None:
    module = Recorder().eval()
    before = state_bits(module)
    x = {"x": torch.zeros(1)}
    clean = {key: value.copy() for key, value in run_in_float32(module, x, NAMES).items()}
    tried = []
    for name, outputs in iter_faulty_outputs(
        module, {"x": np.zeros(1)}, output_names=NAMES, seed=0, max_tensors=None
    ):
        assert state_bits(module) == before, "mended before anyone looks"
        tried.append(name)
        for other in set(NAMES) - {name}:
            assert outputs[other].tobytes() == clean[other].tobytes()
        was, now = clean[name].astype(np.float64), outputs[name].astype(np.float64)
        if name == "zeros":
            assert (now == 2.0**-10).all()
            continue
        share = np.abs(now - was) / np.abs(was)
        unit = 2.0**-7 if name == "brain" else 2.0**-10
        assert (share > unit / 2).all() and (share <= unit).all()
        assert 0.3 < (now > was).mean() < 0.7, "up as often as down: no mere rescaling"
    assert tried == NAMES


def test_every_fault_in_a_small_net_shows(small_net: nn.Module) -> None:
    before = state_bits(small_net)
    clean = run_in_float32(small_net, {"x": torch.from_numpy(X["x"])}, ["y"])["y"]
    names = []
    for name, outputs in iter_faulty_outputs(
        small_net, X, output_names=["y"], seed=0, max_tensors=None
    ):
        names.append(name)
        difference = np.abs(outputs["y"] - clean).max()
        assert 1e-6 < difference / np.abs(clean).max() < 1e-2, name
    assert names == [
        "conv.weight",
        "conv.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "fc.weight",
        "fc.bias",
    ]
    assert state_bits(small_net) == before


def test_network_that_fails_or_a_caller_that_stops_leaves_no_fault(
    small_net: nn.Module,
) -> None:
    before = state_bits(small_net)
    for _ in iter_faulty_outputs(small_net, X, output_names=["y"], seed=0, max_tensors=None):
        break
    wrong = {"x": np.ones((1, 4, 16, 16), np.float32)}
    with pytest.raises(RuntimeError, match="channels"):
        list(
            iter_faulty_outputs(small_net, wrong, output_names=["y"], seed=0, max_tensors=None)
        )
    assert state_bits(small_net) == before


def tried_of(count: int, max_tensors: int | None, seed: int = 0) -> list[int]:
    net = nn.Sequential(*(nn.PReLU() for _ in range(count))).eval()
    x = {"x": np.zeros((1, 1), np.float32)}
    faults = iter_faulty_outputs(
        net, x, output_names=["y"], seed=seed, max_tensors=max_tensors
    )
    return [int(name.removesuffix(".weight")) for name, _ in faults]


def test_sample_is_spread_with_both_ends_in_it() -> None:
    sample = tried_of(100, 12)
    assert len(sample) == len(set(sample)) == 12
    assert (sample[0], sample[-1]) == (0, 99)
    assert max(b - a for a, b in pairwise(sample)) < 20
    assert sample == tried_of(100, 12)
    assert sample != tried_of(100, 12, seed=1)
    assert len({i % 5 for i in sample}) == 5, "not always the same kind of tensor"
    assert tried_of(5, 12) == tried_of(5, None) == [0, 1, 2, 3, 4]
    assert tried_of(5, 2) == [0, 4]
    assert tried_of(5, 1) == [0]


def test_only_what_reaches_an_output_is_tried(small_net: nn.Module) -> None:
    faults = iter_faulty_outputs(
        small_net,
        X,
        output_names=["y"],
        seed=0,
        max_tensors=None,
        parameters=["fc.bias", "conv.weight"],
    )
    assert [name for name, _ in faults] == ["conv.weight", "fc.bias"]


def test_tied_tensor_is_tried_once() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).eval()
    net[1].weight = net[0].weight
    faults = iter_faulty_outputs(
        net, {"x": np.ones((1, 3), np.float32)}, output_names=["y"], seed=0, max_tensors=None
    )
    assert [name for name, _ in faults] == ["0.weight", "0.bias", "1.bias"]


def test_network_without_parameters_is_refused() -> None:
    with pytest.raises(ExportError, match=r"^ReLU has no floating-point parameter to put a"):
        list(iter_faulty_outputs(nn.ReLU(), X, output_names=["y"], seed=0, max_tensors=None))


def test_number_of_faults_depends_on_the_network_alone() -> None:
    assert num_tensors_to_try(15_470_264_320, 32) == 12  # VGG16
    assert num_tensors_to_try(4_089_184_256, 267) == 40  # ResNet-50
    assert num_tensors_to_try(10**12, 100) == 8
    assert num_tensors_to_try(0, 10) == 10


def test_tensor_that_is_as_good_as_zeros_gets_a_fault_that_can_show() -> None:
    """2^-10 of a bias of 1e-6 is below float32's roundoff of 1: no comparison could see it."""
    net = nn.Linear(4, 3).eval()
    tiny = 2.0**-15
    with torch.no_grad():
        net.bias.copy_(torch.tensor([tiny, -tiny, 0.0]))
    x = np.ones((1, 4), np.float32)
    clean = net(torch.from_numpy(x)).detach().numpy()
    faulty = dict(
        iter_faulty_outputs(net, {"x": x}, output_names=["y"], seed=0, max_tensors=None)
    )
    shift = faulty["bias"]["y"] - clean
    assert np.abs(shift - 2.0**-10).max() < 2.0**-14
    assert net.bias.tolist() == [tiny, -tiny, 0.0], "restored, bit by bit"
