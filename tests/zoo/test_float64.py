"""Float64 arithmetic on float32 weights equals that on a float64 copy of the network."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.zoo.float64 import Float64Arithmetic, conv2d_in_float64


class UsesEverything(nn.Module):
    """Weights met in a method, a function, an operator and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.token_11E = nn.Parameter(torch.randn(1, 1, 8))
        self.scale_E = nn.Parameter(torch.randn(8))
        self.weight_OE = nn.Parameter(torch.randn(6, 8))

    def forward(self, x_NE: Tensor) -> Tensor:
        x_NTE = torch.cat([x_NE[:, None], self.token_11E.expand(len(x_NE), -1, -1)], dim=1)
        x_NTE = (x_NTE * self.scale_E).add(self.scale_E)
        return torch.einsum("nte,oe->nto", x_NTE, self.weight_OE)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x_NTE: Tensor) -> Tensor:
        y_NTE: Tensor = self.attention(x_NTE, x_NTE, x_NTE, need_weights=False)[0]
        return y_NTE


class Recurrent(nn.Module):
    """An LSTM compares its input's dtype with its weights' before it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 5, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, x_NTE: Tensor) -> Tensor:
        y_NTE: Tensor = self.lstm(x_NTE)[0]
        return y_NTE


NETWORKS = {
    "linear": (nn.Linear(8, 6), (3, 8)),
    "linear in many blocks": (nn.Linear(200_000, 5), (3, 200_000)),
    "linear without bias": (nn.Linear(100_000, 5, bias=False), (3, 4, 100_000)),
    "convolution": (nn.Conv2d(4, 6, 3, 2, 1, groups=2, padding_mode="reflect"), (3, 4, 9, 9)),
    "same padding": (nn.Conv2d(4, 6, 3, padding="same", bias=False), (3, 4, 9, 9)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, 2), (3, 4, 5, 5)),
    "batch norm": (nn.BatchNorm2d(4), (3, 4, 5, 5)),
    "group norm": (nn.GroupNorm(2, 4), (3, 4, 5, 5)),
    "layer norm": (nn.LayerNorm(8), (3, 8)),
    "PReLU": (nn.PReLU(4), (3, 4, 5, 5)),
    "attention": (Attention(), (3, 5, 8)),
    "recurrent": (Recurrent(), (3, 5, 8)),
    "everything": (UsesEverything(), (3, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_equals_a_float64_copy(name: str) -> None:
    network, shape = NETWORKS[name]
    network.eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with Float64Arithmetic():
        actual = network(x)
    expected = copy.deepcopy(network).double()(x)
    assert actual.dtype == torch.float64
    # Sums of at most 200,000 terms in another order.
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    for key, value in network.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])


@torch.no_grad()
def test_float32_stays_float32() -> None:
    network = nn.Linear(8, 6)
    x_NI = torch.randn(3, 8)
    with Float64Arithmetic():
        y_NO = network(x_NI)
    assert y_NO.dtype == torch.float32
    assert torch.equal(y_NO, network(x_NI))


@pytest.mark.parametrize(
    ("channels", "multiplier", "kernel", "stride", "padding", "dilation"),
    [
        (8, 1, (3, 3), 1, 1, 1),
        (8, 2, (3, 3), 2, 1, 1),
        (6, 1, (7, 7), 1, 3, 1),
        (4, 1, (3, 3), 2, 0, 2),
        (5, 3, (3, 5), (1, 2), (1, 0), 1),
    ],
)
def test_depthwise_convolutions_are_torchs(
    channels: int,
    multiplier: int,
    kernel: tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    dilation: int,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.randn(2, channels, 23, 19, generator=generator, dtype=torch.float64)
    shape = (channels * multiplier, 1, *kernel)
    weight_O1HW = torch.randn(*shape, generator=generator, dtype=torch.float64)
    bias_O = torch.randn(shape[0], generator=generator, dtype=torch.float64)
    arguments = (x_NCHW, weight_O1HW, bias_O, stride, padding, dilation, channels)

    ours = conv2d_in_float64(*arguments)

    torch.testing.assert_close(ours, F.conv2d(*arguments), rtol=1e-12, atol=1e-12)
