"""GoogLeNet and Inception v3: tables, auxiliary heads, the input's range."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlzoo.zoo.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from dlzoo.zoo.layers.head import LogitsWithAuxiliary
from dlzoo.zoo.layers.inception import InputRange
from dlzoo.zoo.models.googlenet import googlenet, googlenet_2014
from dlzoo.zoo.models.inception import InceptionV3, inception_v3

BUILDERS: list[tuple[Callable[..., Any], int, int]] = [
    (googlenet_2014, 2, 224),
    (googlenet, 2, 64),
    (inception_v3, 1, 299),
]


def on_meta(builder: Callable[..., Any], **arguments: Any) -> Any:
    with torch.device("meta"):
        return builder(**arguments)


def shapes_by_module(network: nn.Module, size: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_children():
        module.register_forward_hook(
            lambda _, __, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    network(torch.empty(2, 3, size, size, device="meta"))
    return shapes


def test_googlenet_2014_has_the_sizes_of_table_1() -> None:
    shapes = shapes_by_module(on_meta(googlenet_2014), 224)
    table = {
        "conv1": (64, 112, 112),
        "maxpool1": (64, 56, 56),
        "conv3": (192, 56, 56),
        "maxpool2": (192, 28, 28),
        "inception3a": (256, 28, 28),
        "inception3b": (480, 28, 28),
        "maxpool3": (480, 14, 14),
        "inception4a": (512, 14, 14),
        "inception4b": (512, 14, 14),
        "inception4c": (512, 14, 14),
        "inception4d": (528, 14, 14),
        "inception4e": (832, 14, 14),
        "maxpool4": (832, 7, 7),
        "inception5a": (832, 7, 7),
        "inception5b": (1024, 7, 7),
        "avgpool": (1024, 1, 1),
    }
    assert {name: shapes[name] for name in table} == table


def test_googlenet_2014_is_the_papers_and_googlenet_torchvisions() -> None:
    paper, torchvision = on_meta(googlenet_2014), on_meta(googlenet)

    def kernels(network: nn.Module) -> set[int]:
        return {m.kernel_size[0] for m in network.modules() if isinstance(m, nn.Conv2d)}

    assert (kernels(paper), kernels(torchvision)) == ({1, 3, 5, 7}, {1, 3, 7})
    norms = [m for m in paper.modules() if isinstance(m, nn.LocalResponseNorm)]
    # Caffe's bvlc_googlenet; Caffe, like torch, divides alpha by the size.
    expected = pytest.approx((5, 1e-4, 0.75, 1.0), rel=1e-12)
    assert [(n.size, n.alpha, n.beta, n.k) for n in norms] == [expected] * 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in paper.modules())


def test_inception_v3_has_the_sizes_of_table_1() -> None:
    shapes = shapes_by_module(on_meta(inception_v3), 299)
    table = {
        "Conv2d_1a_3x3": (32, 149, 149),
        "Conv2d_2a_3x3": (32, 147, 147),
        "Conv2d_2b_3x3": (64, 147, 147),
        "maxpool1": (64, 73, 73),
        "Conv2d_4a_3x3": (192, 71, 71),
        "maxpool2": (192, 35, 35),
        "Mixed_5b": (256, 35, 35),
        "Mixed_5d": (288, 35, 35),
        "Mixed_6a": (768, 17, 17),
        "Mixed_6e": (768, 17, 17),
        "Mixed_7a": (1280, 8, 8),
        "Mixed_7c": (2048, 8, 8),
    }
    assert {name: shapes[name] for name in table} == table


@pytest.mark.parametrize(("builder", "num_heads", "size"), BUILDERS)
def test_auxiliary_heads_speak_in_training_only(
    builder: Callable[..., Any], num_heads: int, size: int
) -> None:
    network = on_meta(builder, aux_logits=True, num_classes=7)
    x = torch.empty(2, 3, size, size, device="meta")
    outputs = network.train()(x)
    assert isinstance(outputs, LogitsWithAuxiliary)
    assert [tuple(o.shape) for o in (outputs.logits, *outputs.auxiliary)] == [(2, 7)] * (
        num_heads + 1
    )
    assert isinstance(network.eval()(x), Tensor)
    assert isinstance(on_meta(builder).train()(x), Tensor)


@pytest.mark.parametrize(("builder", "num_heads", "size"), BUILDERS)
def test_dropped_heads_leave_the_network_without(
    builder: Callable[..., Any], num_heads: int, size: int
) -> None:
    network = on_meta(builder, aux_logits=True)
    network.drop_auxiliary_heads()
    assert list(network.state_dict()) == list(on_meta(builder).state_dict())
    x = torch.empty(2, 3, size, size, device="meta")
    assert isinstance(network.train()(x), Tensor)


def test_gradients_of_the_auxiliary_heads_reach_the_stem() -> None:
    torch.manual_seed(0)
    network = googlenet(aux_logits=True, num_classes=3)
    _, auxiliary = network(torch.randn(2, 3, 64, 64))
    for logits_NK in auxiliary:
        network.zero_grad()
        logits_NK.square().sum().backward(retain_graph=True)
        assert network.conv1.conv.weight.grad.abs().max() > 0
        assert network.fc.weight.grad is None or not network.fc.weight.grad.any()


def test_the_input_range_undoes_imagenets_and_does_inceptions() -> None:
    pixels_NCHW = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    mean, std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None]
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    transformed = InputRange()((pixels_NCHW - mean) / std)
    # The constants are float32, as in the exported graph.
    assert (transformed - (pixels_NCHW - 0.5) / 0.5).abs().max() < 1e-6


def test_transform_input_is_an_argument_without_a_key() -> None:
    torch.manual_seed(0)
    plain, transforming = googlenet(), googlenet(transform_input=True)
    transforming.load_state_dict(plain.state_dict(), strict=True)
    plain.double().eval(), transforming.double().eval()
    x_NCHW = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = plain(InputRange().double()(x_NCHW))
        assert torch.equal(transforming(x_NCHW), expected)
        assert not torch.equal(plain(x_NCHW), expected)


def test_weights_of_inception_v3_start_as_in_torchvision() -> None:
    torch.manual_seed(0)
    network = inception_v3(aux_logits=True)
    assert isinstance(network, InceptionV3) and network.AuxLogits is not None
    assert 0.099 < network.fc.weight.std().item() < 0.101
    assert 0.00099 < network.AuxLogits.fc.weight.std().item() < 0.00101
