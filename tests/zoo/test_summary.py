"""What a network costs, against published numbers and against counting by hand.

N   samples          H   height
C   channels         W   width
T   tokens           E   width of a token
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.summary import summarize_card, summarize_model

FLOAT_BYTES = 4
INDEX_BYTES = 8

#: Billions of multiply-adds that torchvision states with its weights (``_ops``).
PUBLISHED_MULTIPLY_ADDS = {
    "alexnet": 0.714,
    "convnext_tiny": 4.456,
    "densenet121": 2.834,
    "googlenet": 1.498,
    "inception_v3": 5.713,
    "mobilenet_v2": 0.301,
    "resnet18": 1.814,
    "resnet50": 4.089,
    "resnet152": 11.514,
    "squeezenet1_1": 0.349,
    "vgg11": 7.609,
    "vgg16": 15.470,
    "vgg19_bn": 19.632,
    "vit_b_16": 17.564,
}


@pytest.mark.parametrize(("name", "billions"), PUBLISHED_MULTIPLY_ADDS.items())
def test_multiply_adds_are_the_published_ones(name: str, billions: float) -> None:
    card = get_card(name)
    summary = summarize_card(card)
    assert round(summary.num_multiply_adds / 1e9, 3) == billions
    assert summary.num_parameters == card.num_parameters
    assert summary.num_trainable_parameters == card.num_parameters
    # Every parameter is read by exactly one of the rows.
    assert summary.num_unused_parameters == 0


def test_layers_are_rows_in_the_order_they_run() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    )
    summary = summarize_model(network, (4, 10, 10))
    conv, relu, flatten, linear = summary.layers
    assert (conv.path, conv.type) == ("0", "Conv2d")
    assert (conv.input_shape, conv.output_shape) == ((1, 4, 10, 10), (1, 6, 4, 4))
    # Each of 6 * 4 * 4 outputs sums over 3 * 3 taps of the 2 channels in its group.
    assert conv.num_multiply_adds == 6 * 4 * 4 * 3 * 3 * 2
    assert conv.num_parameters == 6 * 2 * 3 * 3 + 6
    assert conv.activation_bytes == 6 * 4 * 4 * FLOAT_BYTES
    assert (relu.path, relu.num_parameters, relu.num_multiply_adds) == ("1", 0, 0)
    # A view takes no memory.
    assert (flatten.output_shape, flatten.activation_bytes) == ((1, 96), 0)
    assert (linear.num_parameters, linear.num_multiply_adds) == (96 * 5 + 5, 96 * 5)
    assert summary.num_multiply_adds == conv.num_multiply_adds + linear.num_multiply_adds
    assert summary.activation_bytes == (96 + 96 + 5) * FLOAT_BYTES


class Residual(nn.Module):
    """relu(x + conv(x))."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW: Tensor = self.relu(x_NCHW + self.conv(x_NCHW))
        return y_NCHW


def test_what_a_block_computes_itself_is_a_row_of_its_own() -> None:
    summary = summarize_model(Residual(inplace=True), (2, 8, 8))
    image = 2 * 8 * 8 * FLOAT_BYTES
    assert [(row.path, row.activation_bytes) for row in summary.layers] == [
        ("conv", image),
        ("relu", 0),
        ("", image),
    ]
    assert summary.activation_bytes == 2 * image


@pytest.mark.parametrize(
    ("inplace", "images"),
    [
        # x, conv(x) and their sum; the convolution's result is freed before the ReLU's is made.
        (True, 3),
        (False, 3),
    ],
)
def test_peak_is_what_is_alive_at_one_time(inplace: bool, images: int) -> None:
    image = 2 * 8 * 8 * FLOAT_BYTES
    assert summarize_model(Residual(inplace=inplace), (2, 8, 8)).inference_peak_bytes == (
        images * image
    )


def test_peak_does_not_grow_with_depth() -> None:
    def chain(depth: int) -> nn.Module:
        return nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(depth)))

    image = 2 * 8 * 8 * FLOAT_BYTES
    # The caller holds x; between two convolutions there are one's result and the next one's.
    assert summarize_model(chain(2), (2, 8, 8)).inference_peak_bytes == 3 * image
    assert summarize_model(chain(7), (2, 8, 8)).inference_peak_bytes == 3 * image
    assert summarize_model(chain(7), (2, 8, 8)).activation_bytes == 7 * image


def test_training_keeps_what_the_backward_pass_reads() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 7, 1)
    )
    summary = summarize_model(network, (3, 8, 8))
    # The first convolution keeps the image, ReLU its result (the pooling's input too), the pooling
    # its indices, and the last convolution its input; nobody keeps a convolution's result.
    kept = (3 * 64 + 5 * 64 + 5 * 16) * FLOAT_BYTES + 5 * 16 * INDEX_BYTES
    assert summary.training_activation_bytes == kept


def test_frozen_network_keeps_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()).requires_grad_(False)
    summary = summarize_model(network, (3, 8, 8))
    assert (summary.num_parameters, summary.num_trainable_parameters) == (140, 0)
    assert summary.training_activation_bytes == 0


class SelfAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)

    def forward(self, x_NTE: Tensor) -> Tensor:
        y_NTE: Tensor = self.attention(x_NTE, x_NTE, x_NTE, need_weights=False)[0]
        return y_NTE


class LooksAtValues(nn.Module):
    """Control flow that depends on data, so that shapes alone do not do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return -y if bool(x.sum() > 1e9) else y


@pytest.mark.parametrize("wrap", [nn.Sequential, LooksAtValues])
def test_attention_is_counted_with_data_and_without(wrap: type[nn.Module]) -> None:
    num_tokens, width = 5, 8
    summary = summarize_model(wrap(SelfAttention(width, 2)), (num_tokens, width))
    projections = 4 * num_tokens * width * width
    attention = 2 * num_tokens * num_tokens * width
    assert summary.num_multiply_adds == projections + attention
    assert summary.num_unused_parameters == 0
    assert torch.backends.mha.get_fastpath_enabled()


def test_data_dependent_network_runs_for_real_and_agrees() -> None:
    # Not BatchNorm: without data it gives two more numbers a channel, which it leaves out with data.
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.MaxPool2d(2))
    without_data = summarize_model(inner, (3, 9, 9))
    with_data = summarize_model(LooksAtValues(inner), (3, 9, 9))
    rows = [row for row in with_data.layers if row.path]
    assert [row.path for row in rows] == ["inner.0", "inner.1", "inner.2", "inner.3"]
    assert [row.activation_bytes for row in rows] == [
        row.activation_bytes for row in without_data.layers
    ]
    assert with_data.num_multiply_adds == without_data.num_multiply_adds
    assert with_data.training_activation_bytes == without_data.training_activation_bytes
    assert with_data.inference_peak_bytes == without_data.inference_peak_bytes


def test_parameters_that_do_not_run_are_told() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    network.register_module("spare", nn.Linear(3, 4))
    network.forward = network[0].forward  # type: ignore[method-assign]
    summary = summarize_model(network, (3,))
    assert (summary.num_parameters, summary.num_unused_parameters) == (24, 16)


def test_shared_module_has_a_row_a_call_and_counts_once() -> None:
    shared = nn.Linear(3, 3)
    summary = summarize_model(nn.Sequential(shared, nn.ReLU(), shared), (3,))
    assert [row.num_parameters for row in summary.layers] == [12, 0, 0]
    assert [row.num_multiply_adds for row in summary.layers] == [9, 0, 9]
    assert summary.num_parameters == 12


class CountsItsCalls(nn.Module):
    """Writes to a buffer in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("num_calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.num_calls += 1
        return x + self.num_calls


def test_module_is_left_as_it_was() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), LooksAtValues(CountsItsCalls())
    )
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parameters = dict(network.named_parameters())
    rng_state = torch.get_rng_state()
    summarize_model(network, (3, 8, 8))
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert [part.training for part in network] == [True, False, True, True]
    assert all(
        parameters[name] is parameter and parameter.device.type == "cpu"
        for name, parameter in network.named_parameters()
    )
    assert all(
        torch.equal(before[name], value) for name, value in network.state_dict().items()
    )
    for part in network.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks


class SharedPart(nn.Module):
    """One layer under two paths, and a weight that two layers share (as timm's CoaT has them)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = nn.ModuleList([self.first, nn.BatchNorm1d(4)])
        self.norm = self.again[1]
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.norm(self.again[0](self.first(x))))


def test_shared_parts_are_left_where_they_were() -> None:
    network = SharedPart()
    weight, mean = network.first.weight, network.norm.running_mean
    summary = summarize_model(network, (4,))
    assert summary.num_multiply_adds == 3 * 16
    assert summary.num_parameters == 16 + 4 + 8 + 4
    assert network.first.weight is weight and network.tied.weight is weight
    assert network.norm.running_mean is mean
    tensors = [*network.parameters(), *network.buffers()]
    assert all(tensor.device.type == "cpu" for tensor in tensors)


def test_failure_leaves_no_hooks_either() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ArgumentError):
        summarize_model(network, (1, 8, 8))
    assert not network[0]._forward_hooks and not network[0]._forward_pre_hooks
    assert torch.backends.mha.get_fastpath_enabled()


def test_wrong_shape_is_told_in_one_line() -> None:
    with pytest.raises(ArgumentError) as caught:
        summarize_model(nn.Sequential(nn.Conv2d(3, 4, 3)), (1, 8, 8))
    message = str(caught.value)
    assert message.startswith(
        "Sequential: got an input of shape (1, 8, 8) for one sample, which it does not accept ("
    )
    assert "expected input[1, 1, 8, 8] to have 3 channels" in message
    assert message.endswith("; pass the shape it was built for.")
    assert "\n" not in message


def test_other_dtypes_count_their_own_bytes() -> None:
    network = nn.Sequential(nn.Linear(3, 5)).double()
    assert summarize_model(network, (3,)).activation_bytes == 5 * 8


def test_inside_inference_mode_too() -> None:
    with torch.inference_mode():
        assert summarize_model(nn.Sequential(nn.Linear(3, 5)), (3,)).num_multiply_adds == 15
