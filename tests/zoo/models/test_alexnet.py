"""AlexNet against the arithmetic and the constants of its papers."""

import pytest
import torch
from torch import nn

from dlzoo.zoo.layers.conv import output_size
from dlzoo.zoo.models.alexnet import alexnet, alexnet_2012


@pytest.fixture(scope="module")
def meta_2012() -> nn.Module:
    with torch.device("meta"):
        return alexnet_2012()


def modules(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


def test_neurons_of_each_layer(meta_2012: nn.Module) -> None:
    # Section 3.5 prints 186,624 - 64,896 - 64,896 - 43,264 - 4096 - 4096 - 1000 for the layers
    # after the first (whose 253,440 contradicts its own 55 x 55 x 96 = 290,400).
    x = torch.empty(1, 3, 227, 227, device="meta")
    sizes = []
    for layer in [*meta_2012.features, nn.Flatten(), *meta_2012.classifier]:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            sizes.append(x.numel())
    assert sizes == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]


def test_227_pixels_are_what_the_strides_ask_for() -> None:
    first = output_size(227, 11, stride=4, exact=True)
    assert (first, output_size(first, 3, stride=2, exact=True)) == (55, 27)


def test_two_groups_where_the_paper_has_two_gpus(meta_2012: nn.Module) -> None:
    assert [conv.groups for conv in modules(meta_2012, nn.Conv2d)] == [1, 2, 1, 2, 2]


def test_response_normalization_and_overlapping_pooling(meta_2012: nn.Module) -> None:
    order = [type(layer).__name__ for layer in meta_2012.features]
    assert order[:8] == ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"] * 2
    norms = modules(meta_2012, nn.LocalResponseNorm)
    # torch divides alpha by the size; the paper's k = 2, n = 5, alpha = 1e-4, beta = 0.75.
    assert [(n.k, n.size, n.alpha / n.size, n.beta) for n in norms] == [(2, 5, 1e-4, 0.75)] * 2
    pools = modules(meta_2012, nn.MaxPool2d)
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(3, 2)] * 3


def test_small_images_get_a_small_head() -> None:
    with torch.device("meta"):
        network, published = alexnet(hidden_width=24, pooled_size=1), alexnet()
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linear] == [256, 24, 24]
    # 64 -> 15 -> 7 -> 3 -> 1: what the head sees is all there is, and nothing is repeated.
    x = network.features(torch.empty(1, 3, 64, 64, device="meta"))  # type: ignore[operator]
    assert x.shape == (1, 256, 1, 1)
    assert list(network.state_dict()) == list(published.state_dict())


def test_weights_start_as_in_section_5() -> None:
    torch.manual_seed(0)
    network = alexnet_2012()
    convolutions, linear = modules(network, nn.Conv2d), modules(network, nn.Linear)
    assert [layer.bias.unique().tolist() for layer in convolutions] == [
        [0],
        [1],
        [0],
        [1],
        [1],
    ]
    assert [layer.bias.unique().tolist() for layer in linear] == [[1], [1], [0]]
    for layer in convolutions + linear:
        # 35,000 draws or more: the estimate is within 2 %.
        assert 0.0098 < layer.weight.std().item() < 0.0102


def test_dropout_is_on_in_training_only() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        network, x = alexnet(num_classes=5), torch.randn(1, 3, 63, 63)
        assert not torch.equal(network(x), network(x))
        network.eval()
        assert torch.equal(network(x), network(x))


def test_activation_is_an_argument() -> None:
    with torch.device("meta"):
        network = alexnet(activation="gelu")
    assert len(modules(network, nn.GELU)) == 7
    assert not modules(network, nn.ReLU)
