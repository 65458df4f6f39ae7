"""Vision Transformer: attention by its formula, positions, the published file's keys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.catalog import get_card
from dlzoo.zoo.models.vit import (
    EncoderBlock,
    VisionTransformer,
    remap_legacy_keys,
    vit_b_16,
)

Array = NDArray[np.float64]


def small() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        image_size=32,
        patch_size=16,
        num_layers=2,
        width=24,
        mlp_width=48,
        num_heads=3,
        num_classes=5,
        dropout=0.0,
        activation=nn.GELU,
    ).eval()


def test_sizes_of_vit_base() -> None:
    with torch.device("meta"):
        network = vit_b_16()
    assert network.get_parameter("encoder.pos_embedding").shape == (1, 14 * 14 + 1, 768)
    blocks = [m for m in network.modules() if isinstance(m, EncoderBlock)]
    assert len(blocks) == 12
    assert {block.self_attention.num_heads for block in blocks} == {12}
    assert network.get_submodule("encoder.layers.encoder_layer_0.mlp.0").out_features == 3072


def layer_norm(z_NTE: Array, weight_E: Array, bias_E: Array) -> Array:
    deviation = z_NTE - z_NTE.mean(-1, keepdims=True)
    variance = (deviation**2).mean(-1, keepdims=True)
    return np.asarray(deviation / np.sqrt(variance + 1e-6) * weight_E + bias_E)


def test_block_is_equations_2_3_and_5_to_8() -> None:
    torch.manual_seed(1)
    num_heads, width = 3, 12
    block = EncoderBlock(width, 20, num_heads, dropout=0.0, activation=nn.GELU).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    z_NTE = np.random.default_rng(2).normal(size=(2, 5, width))
    w = {name: value.numpy() for name, value in block.state_dict().items()}

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])

    normal = layer_norm(z_NTE, w["ln_1.weight"], w["ln_1.bias"])
    qkv = normal @ w["self_attention.in_proj_weight"].T + w["self_attention.in_proj_bias"]
    q, k, v = np.split(qkv, 3, axis=-1)
    heads = []
    for head in np.split(np.arange(width), num_heads):
        scores = q[..., head] @ k[..., head].swapaxes(1, 2) / math.sqrt(width / num_heads)
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        heads.append(weights @ v[..., head])
    attended = linear(np.concatenate(heads, axis=-1), "self_attention.out_proj")
    middle = z_NTE + attended
    hidden = linear(layer_norm(middle, w["ln_2.weight"], w["ln_2.bias"]), "mlp.0")
    gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    expected = middle + linear(gelu, "mlp.3")

    for has_gradient in (True, False):  # without gradients torch takes its fused attention
        with torch.set_grad_enabled(has_gradient):
            got = block(torch.from_numpy(z_NTE)).detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_position_of_a_patch_matters() -> None:
    network = small()
    image_NCHW = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    swapped_NCHW = image_NCHW.flip(-1).unflatten(-1, (2, 16)).flip(-1).flatten(-2)
    assert torch.equal(swapped_NCHW[..., :16], image_NCHW[..., 16:])
    with torch.no_grad():
        nn.init.zeros_(network.encoder.pos_embedding)
        same = network(image_NCHW) - network(swapped_NCHW)
        nn.init.normal_(network.encoder.pos_embedding)
        different = network(image_NCHW) - network(swapped_NCHW)
    assert float(same.abs().max()) < 1e-5
    assert float(different.abs().max()) > 1e-3


def test_untrained_network_lets_its_input_through() -> None:
    network = small()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        logits_NK = network(torch.randn(2, 3, 32, 32, generator=generator))
    assert float((logits_NK[0] - logits_NK[1]).abs().max()) > 1e-3


def test_published_keys_are_renamed() -> None:
    today = small().state_dict()
    published = {
        key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for key, value in today.items()
    }
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in published
    renamed = remap_legacy_keys(published)
    assert list(renamed) == list(today)
    assert all(renamed[key] is today[key] for key in today)
    assert list(remap_legacy_keys(today)) == list(today)
    assert get_card("vit_b_16").remap_keys is remap_legacy_keys


def test_image_of_another_size_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        small()(torch.zeros(1, 3, 32, 48))
    assert str(caught.value) == (
        "ViT: got an image of 32 x 48 pixels, expected 32 x 32, the size of its position "
        "embedding; resize the image, or build the model with another `image_size`."
    )


def test_image_size_is_a_multiple_of_the_patch() -> None:
    with pytest.raises(ArgumentError) as caught:
        vit_b_16(image_size=230)
    assert str(caught.value) == (
        "`image_size` got 230, expected a multiple of the patch size 16; use 224."
    )


def test_traces_with_dynamic_batch() -> None:
    network = small()
    program = torch.export.export(
        network,
        (torch.zeros(2, 3, 32, 32),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    ).module()
    x_NCHW = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(program(x_NCHW), network(x_NCHW), rtol=1e-5, atol=1e-6)
