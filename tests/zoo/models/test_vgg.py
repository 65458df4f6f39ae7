"""VGG against table 1 of the paper."""

import pytest
import torch
from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.models import vgg

DEPTHS = (11, 13, 16, 19)


def on_meta(depth: int, suffix: str = "", **arguments: object) -> nn.Module:
    with torch.device("meta"):
        return getattr(vgg, f"vgg{depth}{suffix}")(**arguments)


@pytest.mark.parametrize("suffix", ["", "_bn"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_as_many_weight_layers_as_the_name_says(depth: int, suffix: str) -> None:
    layers = [
        module
        for module in on_meta(depth, suffix).modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert len(layers) == depth
    kernels = {layer.kernel_size for layer in layers if isinstance(layer, nn.Conv2d)}
    assert kernels == {(3, 3)}


@pytest.mark.parametrize(("depth", "millions"), [(11, 133), (13, 133), (16, 138), (19, 144)])
def test_parameters_are_table_2s(depth: int, millions: int) -> None:
    num_parameters = get_card(f"vgg{depth}").num_parameters
    assert num_parameters is not None
    assert round(num_parameters / 1e6) == millions


def test_each_stage_halves_the_image_and_ends_with_its_maps() -> None:
    x, shapes = torch.empty(1, 3, 224, 224, device="meta"), []
    for layer in on_meta(16).features:  # type: ignore[union-attr]
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]


def test_norm_and_activation_are_arguments() -> None:
    network = on_meta(11, norm="group_norm", activation="mish", num_channels=1)
    kinds = [type(layer) for layer in network.features]  # type: ignore[union-attr]
    assert kinds[:3] == [nn.Conv2d, nn.GroupNorm, nn.Mish]
    assert nn.BatchNorm2d not in kinds and nn.ReLU not in kinds
    assert network.features[0].in_channels == 1  # type: ignore[index,union-attr]
    plain = on_meta(11, "_bn", norm=None)
    assert list(plain.state_dict()) == list(on_meta(11).state_dict())


def test_small_images_get_small_stages_and_heads() -> None:
    network = on_meta(
        11, "_bn", num_channels=1, widths=[4, 8, 16, 16, 24], hidden_width=12, pooled_size=2
    )
    convolutions = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [4, 8, 16, 16, 16, 16, 24, 24]
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linear] == [24 * 2 * 2, 12, 12]
    assert network.eval()(torch.empty(1, 1, 64, 64, device="meta")).shape == (1, 1000)
    assert list(network.state_dict()) == list(on_meta(11, "_bn").state_dict())


def test_another_number_of_stages_is_refused() -> None:
    with pytest.raises(
        ArgumentError, match=r"`widths` got \[8, 16\], expected 5 numbers, one for each stage"
    ):
        on_meta(11, widths=[8, 16])


def test_a_norm_that_is_none_is_refused() -> None:
    with pytest.raises(ArgumentError, match="Layer 'mish' is of kind 'activation'"):
        on_meta(11, norm="mish")


def test_builders_are_found_under_their_names() -> None:
    for depth in DEPTHS:
        for suffix in ("", "_bn"):
            builder = getattr(vgg, f"vgg{depth}{suffix}")
            assert builder.__name__ == f"vgg{depth}{suffix}"
            assert get_card(builder.__name__).builder is builder
