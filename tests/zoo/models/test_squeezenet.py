"""SqueezeNet 1.1 against its table."""

from typing import Any

import torch
from torch import nn

from dlzoo.zoo.models.squeezenet import Fire, squeezenet1_1


def on_meta(**arguments: Any) -> Any:
    with torch.device("meta"):
        return squeezenet1_1(**arguments)


def test_sizes_after_each_module() -> None:
    x, shapes = torch.empty(1, 3, 224, 224, device="meta"), []
    for layer in on_meta().features:
        x = layer(x)
        if isinstance(layer, Fire | nn.MaxPool2d):
            shapes.append(tuple(x.shape[1:]))
    # The authors' SqueezeNet_v1.1 with Caffe's rounding up.
    assert shapes == [
        (64, 55, 55),
        *[(128, 55, 55)] * 2,
        (128, 27, 27),
        *[(256, 27, 27)] * 2,
        (256, 13, 13),
        *[(384, 13, 13)] * 2,
        *[(512, 13, 13)] * 2,
    ]


def test_a_fire_module_expands_both_ways() -> None:
    torch.manual_seed(0)
    fire, x = Fire(5, 2, 3, "relu"), torch.randn(1, 5, 4, 4)
    squeezed = fire.squeeze(x).relu()
    expected = [fire.expand1x1(squeezed).relu(), fire.expand3x3(squeezed).relu()]
    assert torch.equal(fire(x), torch.cat(expected, 1))
    assert fire.expand1x1.kernel_size == (1, 1) and fire.expand3x3.kernel_size == (3, 3)


def test_weights_start_as_in_torchvision() -> None:
    torch.manual_seed(0)
    network = squeezenet1_1()
    last = network.classifier[1]
    assert 0.0099 < last.weight.std().item() < 0.0101
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            assert not layer.bias.any()
            if layer is not last:
                bound = (6 / layer.weight[0].numel()) ** 0.5
                assert 0.9 * bound < layer.weight.abs().max().item() <= bound


def test_activation_is_an_argument() -> None:
    network = on_meta(activation="mish", num_channels=1)
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())
    assert network(torch.empty(1, 1, 224, 224, device="meta")).shape == (1, 1000)
