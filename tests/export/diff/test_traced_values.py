"""PyTorch's value of every traced operator: the float64 of the whole network, and its noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.export.diff.traced_network import TracedNetwork, source_line, trace_network
from dlzoo.export.diff.traced_values import TracedValues, reference_values
from dlzoo.export.reference.float64_arithmetic import compute_in_float64


class Net(nn.Module):
    """A convolution, its normalization, a residual and a linear layer, on open batches.

    Flattening is a view that does not fit memory in channels_last.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv(x)))
        y = y + y.mean((2, 3), keepdim=True)
        scores: Tensor = self.fc(F.adaptive_max_pool2d(y, 2).flatten(1))
        return scores


@pytest.fixture(scope="module")
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


@pytest.fixture(scope="module")
def traced(net: Net) -> TracedNetwork:
    return trace_network(
        net,
        {"x": torch.zeros(2, 3, 8, 8)},
        output_names=["y"],
        opset=20,
        dynamic_axes={"x": {0: "batch"}},
    )


def inputs(scale: float = 1.0) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)) * scale
    return x.astype(np.float32)


def test_the_last_value_is_the_float64_of_the_network(net: Net, traced: TracedNetwork) -> None:
    (name,) = traced.output_names
    values = TracedValues(traced, [inputs()]).values([name])
    y, noise = values[name]
    expected = compute_in_float64(net, {"x": torch.from_numpy(inputs())}, ["y"])["y"]
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-13)
    size = float(np.sqrt(np.mean(y**2)))
    assert 1e-9 * size < noise.rms <= noise.max < 1e-5 * size


def test_every_value_has_its_place(traced: TracedNetwork) -> None:
    by_operator = {value.operator: value for value in traced.values.values()}
    assert by_operator["conv2d"].module_path == "conv"
    assert by_operator["linear"].module_path == "fc"
    assert by_operator["relu"].module_path == ""
    line = by_operator["conv2d"].source_line
    assert line.rpartition("/")[2].startswith("test_traced_values.py:") and line[0] != "/"
    number = int(line.rpartition(":")[2])
    assert "self.conv(x)" in Path(__file__).read_text().splitlines()[number - 1]


def test_a_value_follows_from_those_that_are_given(traced: TracedNetwork) -> None:
    reference = TracedValues(traced, [inputs()])
    (relu,) = [v.name for v in traced.values.values() if v.operator == "relu"]
    (argument,) = reference.arguments(relu)
    array = np.linspace(-1, 1, 4 * 64, dtype=np.float32).reshape(1, 4, 8, 8)
    found = reference.values_from(relu, {argument: array})
    assert found is not None
    np.testing.assert_array_equal(found[0], np.maximum(array, 0))
    assert found[1].max == 0


def test_what_nobody_needs_is_let_go_and_the_rest_comes_in_order(
    traced: TracedNetwork,
) -> None:
    names = [name for name, _, _ in reference_values(traced, list(traced.values), [inputs()])]
    assert names == list(traced.values)
    assert not list(reference_values(traced, ["nothing"], [inputs()]))


def test_noise_grows_with_the_values(traced: TracedNetwork) -> None:
    (name,) = traced.output_names
    small = TracedValues(traced, [inputs()]).values([name])[name][1]
    large = TracedValues(traced, [inputs(1000)]).values([name])[name][1]
    assert large.rms > 100 * small.rms


def test_source_lines_name_no_folder_of_the_machine() -> None:
    trace = (
        f'File "{torch.__file__}", line 3, in f\n  g()\nFile "/home/me/net.py", line 7, in g'
    )
    assert source_line(trace) == "net.py:7"
    assert source_line("") == ""
    assert source_line(f'File "{torch.nn.modules.module.__file__}", line 1, in f') == ""
    from dlzoo.zoo.models import resnet

    line = source_line(f'File "{resnet.__file__}", line 5, in forward')
    assert line == "dlzoo/zoo/models/resnet.py:5"
