"""Which spelling is taken, for an opset, a target, a call and a user's wish; and why."""

import pytest
import torch
from torch import nn

from dlzoo.errors import ArgumentError, ExportError
from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
from dlzoo.export.lowering.costs import cost_of, failed_accuracy
from dlzoo.export.lowering.kernels import TARGETS, Target, kernel_status
from dlzoo.export.lowering.operators import OPERATORS
from dlzoo.export.lowering.registry import choose_lowering, parse_overrides, why_not


def taken(operator: str, opset: int, target: str = "ort-cpu") -> str:
    return choose_lowering(OPERATORS[operator], opset, target).lowering.key  # type: ignore[arg-type]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("opset", [11, 17, 20, 24])
@pytest.mark.parametrize("target", TARGETS)
def test_the_fastest_exact_spelling_is_taken(
    operator: str, opset: int, target: Target
) -> None:
    try:
        low = choose_lowering(OPERATORS[operator], opset, target).lowering
    except ExportError as error:
        assert "cannot be spelled" in str(error)
        return
    cost = cost_of(operator, low.key, target)
    if cost is None:
        return
    others = [
        cost_of(operator, other.key, target)
        for other in OPERATORS[operator].lowerings
        if not why_not(other, opset, target)
        and not failed_accuracy(operator, other.key, target)
    ]
    # A spelling that is registered first is kept where another is faster by less than a fifth.
    assert all(other is None or cost * 0.8 <= other + 1e-9 for other in others)


def test_kernels_come_from_the_build() -> None:
    assert kernel_status("Gelu", 20, "ort-cpu") == "kernel"
    assert kernel_status("Gelu", 19, "ort-cpu") == "missing"
    assert kernel_status("Mish", 18, "ort-cpu") == "expanded"
    assert kernel_status("com.microsoft::FastGelu", 11, "ort-cpu") == "kernel"
    assert kernel_status("com.microsoft::NoSuch", 11, "ort-cpu") == "missing"
    assert kernel_status("MaxPool", 22, "ort-cuda") == "missing"
    assert kernel_status("MaxPool", 21, "ort-cuda") == "kernel"
    assert kernel_status("Gelu", 20, "tensorrt") == "missing"


def test_targets_differ() -> None:
    assert taken("gelu_tanh", 17, "ort-cpu") == "contrib"
    assert taken("gelu_tanh", 17, "portable").startswith("decomposed")
    assert taken("layer_norm", 17, "tensorrt") == "decomposed"
    assert taken("mish", 20, "openvino") == "native"


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_for_every_target(target: str) -> None:
    net = nn.Sequential(nn.GELU("tanh"), nn.GroupNorm(2, 4), nn.Mish())
    graph = onnx_from_torch(
        net.eval(), {"x": torch.zeros(2, 4, 8, 8)}, output_names=["y"], target=target
    )
    for name in graph.num_nodes_by_op:
        assert kernel_status(name, 20, target) != "missing", name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mish", "`lowerings` got 'mish', expected one of mish=native, "),
        ("swish=native", "`lowerings` got 'swish=native', expected OPERATOR=SPELLING"),
        ("silu=function", "`lowerings` got 'silu=function', expected one of "),
    ],
)
def test_overrides_that_do_not_exist(text: str, message: str) -> None:
    with pytest.raises(ArgumentError) as e:
        parse_overrides([text], OPERATORS)
    assert str(e.value).startswith(message)
    assert "\n" not in str(e.value)


def test_target_that_does_not_exist() -> None:
    with pytest.raises(ArgumentError, match="`target` got 'tpu', expected one of ort-cpu, "):
        taken("mish", 20, "tpu")


def test_override_that_cannot_be_delivered_says_why() -> None:
    with pytest.raises(ExportError) as e:
        onnx_from_torch(
            nn.LocalResponseNorm(4),
            {"x": torch.zeros(2, 8, 4, 4)},
            output_names=["y"],
            lowerings={"local_response_norm": "native"},
        )
    assert str(e.value) == (
        "The lowering local_response_norm=native cannot be delivered at opset 20 for ort-cpu: "
        "native has another window than torch where the size is even. Leave it out, or choose "
        "another spelling."
    )


def test_override_without_use_is_noted() -> None:
    graph = onnx_from_torch(
        nn.ReLU().eval(),
        {"x": torch.zeros(2, 3)},
        output_names=["y"],
        lowerings={"mish": "native"},
    )
    assert graph.notes == (
        "The lowering mish=native changed nothing: the network has no mish.",
    )
