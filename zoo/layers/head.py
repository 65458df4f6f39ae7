"""Heads that turn a classifier's logits into scores, and outputs of networks with several heads.

N   samples          K   classes
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.layers.layer_registry import get_layer, register_layer

HEADS = ("logits", "softmax", "sigmoid")


class LogitsWithAuxiliary(NamedTuple):
    """Outputs in training of a network with auxiliary heads; in evaluation it returns logits only.

    Source:
        Szegedy et al. 2014, "Going deeper with convolutions", section 5: the loss of each
        auxiliary head is added with a weight (0.3), and the heads are discarded afterwards.
    """

    #: [N, K]
    logits: Tensor
    #: [N, K] each, in order from the input.
    auxiliary: tuple[Tensor, ...]


register_layer(
    "softmax_head",
    kind="head",
    formula="exp(x_k) / sum_j exp(x_j): one of K classes, the scores of a sample add up to 1",
    source="Bridle 1990, Probabilistic interpretation of feedforward network outputs",
    onnx_nodes=("Softmax",),
    native=("Softmax", 1),
    onnx="Native; below opset 13 it flattens all axes from the given one on.",
)(partial(nn.Softmax, dim=1))

register_layer(
    "sigmoid_head",
    kind="head",
    formula="1 / (1 + exp(-x_k)): each class on its own, so several may apply",
    source="Bishop 2006, Pattern recognition and machine learning, section 4.3.2",
    onnx_nodes=("Sigmoid",),
    native=("Sigmoid", 1),
    onnx="Native.",
)(nn.Sigmoid)


def with_head(module: nn.Module, head: str) -> nn.Module:
    """A classifier whose output is logits, softmax scores or multi-label sigmoid scores.

    Shape:
        The module's output is [N, K], and stays so.

    ONNX:
        Nothing for ``logits``; one Softmax or Sigmoid at the end.

    Raises:
        ArgumentError: the zoo has no such head.
    """
    if head == "logits":
        return module
    if head not in HEADS:
        raise ArgumentError(f"`head` got {head!r}, expected one of {', '.join(HEADS)}.")
    scored = nn.Sequential(module, get_layer(f"{head}_head").build())
    scored.training = module.training
    return scored
