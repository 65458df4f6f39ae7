"""The table of layers, and what it claims about ONNX."""

import ast

import onnx
import pytest
import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.layer_registry import LayerCard, get_layer, list_layers, resolve_layer

#: Arguments for 8 channels; the others need none.
ARGUMENTS: dict[str, tuple[object, ...]] = {
    "convolution": (8, 4, 3),
    "table_convolution": (8, [[0, 1], [2, 3, 7]], 3),
    "batch_norm": (8,),
    "group_norm": (8,),
    "layer_norm": (8,),
    "layer_norm_channels_first": (8,),
    "local_response_norm": (8,),
    "max_pool": (3, 2),
    "average_pool": (2,),
    "adaptive_average_pool": (2,),
    "trainable_subsampling": (8,),
    "rbf_output": (torch.ones(3, 512),),
}


def build(card: LayerCard) -> nn.Module:
    keywords = {"num_groups": 2} if card.name == "group_norm" else {}
    return card.build(*ARGUMENTS.get(card.name, ()), **keywords)


@pytest.mark.parametrize("card", list_layers(), ids=lambda card: card.name)
def test_a_card_says_everything(card: LayerCard) -> None:
    assert card.formula and card.source and card.onnx
    assert isinstance(build(card), nn.Module)
    assert get_layer(card.name) is card


@pytest.mark.parametrize(
    "name",
    [
        "relu",
        "sigmoid",
        "tanh",
        "leaky_relu",
        "prelu",
        "swish",
        "gelu",
        "gelu_tanh",
        "mish",
        "hardswish",
        "batch_norm",
        "group_norm",
        "layer_norm",
        "local_response_norm",
        "convolution",
        "max_pool",
        "average_pool",
        "softmax_head",
        "sigmoid_head",
    ],
)
def test_the_named_layers_are_there(name: str) -> None:
    assert get_layer(name).name == name


@pytest.mark.parametrize(
    "card", [card for card in list_layers() if card.native], ids=lambda card: card.name
)
def test_the_native_operator_is_as_old_as_claimed(card: LayerCard) -> None:
    assert card.native is not None
    operator, opset = card.native
    assert onnx.defs.get_schema(operator, opset, "").since_version <= opset
    if opset > 1:
        versions = [
            schema.since_version
            for schema in onnx.defs.get_all_schemas_with_history()
            if schema.domain == "" and schema.name == operator
        ]
        # GroupNormalization of opset 18 scaled by group, not by channel: 21 is the first that fits.
        assert min(versions) == (18 if operator == "GroupNormalization" else opset)


class SideBySide(nn.Module):
    """All layers on the same input, so that one export shows what becomes of each."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        outputs = []
        for number, (name, layer) in enumerate(self.layers.items(), start=1):
            # Each its own input: the exporter shares equal nodes between layers otherwise.
            own_NCHW = x_NCHW + number
            outputs.append(layer(own_NCHW.flatten(1) if name == "rbf_output" else own_NCHW))
        return outputs


def test_what_torch_exports_is_what_the_cards_say() -> None:
    cards = list_layers()
    network = SideBySide({card.name: build(card) for card in cards}).eval()
    program = torch.onnx.export(
        network, (torch.randn(2, 8, 8, 8),), dynamo=True, opset_version=20, verbose=False
    )
    assert program is not None
    nodes: dict[str, list[str]] = {card.name: [] for card in cards}
    for node in program.model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        for scope in scopes:
            if scope.startswith("layers."):
                nodes[scope.split(".")[1]].append(node.op_type)
    assert {name: tuple(found) for name, found in nodes.items()} == {
        card.name: card.onnx_nodes for card in cards
    }


def test_a_kind_can_be_listed_alone() -> None:
    kinds = {card.kind for card in list_layers()}
    assert kinds == {"activation", "norm", "pool", "conv", "head"}
    assert {card.kind for card in list_layers("norm")} == {"norm"}


def test_an_unknown_layer_gets_near_names() -> None:
    with pytest.raises(ArgumentError) as caught:
        get_layer("mesh")
    assert str(caught.value) == "No layer is named 'mesh'. Did you mean 'mish'?"


def test_a_layer_unlike_any_gets_all_names() -> None:
    with pytest.raises(ArgumentError, match=r"^No layer is named 'zzz'. The zoo has .*mish"):
        get_layer("zzz")


def test_a_layer_of_another_kind_is_refused() -> None:
    with pytest.raises(ArgumentError) as caught:
        resolve_layer("mish", "norm")
    assert str(caught.value) == (
        "Layer 'mish' is of kind 'activation', expected kind 'norm': one of batch_norm, "
        "group_norm, layer_norm, layer_norm_channels_first, local_response_norm."
    )


def test_a_callable_is_taken_as_it_is() -> None:
    assert resolve_layer(nn.Softplus, "activation") is nn.Softplus
    assert resolve_layer("gelu", "activation") is nn.GELU
