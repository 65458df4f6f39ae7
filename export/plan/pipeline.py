"""Wrap a network for export: preprocessing before it, a head behind it.

Shape legend: N batch, H and W height and width, C channels, K classes.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.image_preprocessor import ImagePreprocessor
from dlzoo.zoo.registry import Preprocessing

HeadName = Literal["logits", "softmax", "sigmoid"]

#: What the graph's output is called under each head.
OUTPUT_NAMES: dict[str, str] = {
    "logits": "logits",
    "softmax": "probabilities",
    "sigmoid": "scores",
}


class Pipeline(nn.Module):
    """A network with its preprocessing and its head, as one module.

    **Shape** ``[N, C, H, W]`` float32, or ``[N, H, W, C]`` uint8 with preprocessing, to
    ``[N, K]`` float32.
    """

    def __init__(self, preprocess: nn.Module, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Preprocess, run the network, apply the head."""
        scores_NK: Tensor = self.head(self.network(self.preprocess(x)))
        return scores_NK


def wrap_network(
    network: nn.Module, *, head: str, preprocessing: Preprocessing | None
) -> nn.Module:
    """The module to export: ``network`` itself, or with what was asked around it.

    Args:
        network: takes ``[N, C, H, W]`` float32 and gives ``[N, K]`` logits.
        head: ``logits`` leaves them, ``softmax`` and ``sigmoid`` turn them into probabilities
            of exclusive classes and of independent labels.
        preprocessing: put into the graph where given.

    Raises:
        ArgumentError: the head is none of the three.
    """
    heads = {
        "logits": nn.Identity(),
        "softmax": nn.Softmax(dim=-1),
        "sigmoid": nn.Sigmoid(),
    }
    if head not in heads:
        raise ArgumentError(
            f"`head` got {head!r}, expected one of {', '.join(heads)}. Leave it out for logits."
        )
    if head == "logits" and preprocessing is None:
        return network
    first = nn.Identity() if preprocessing is None else ImagePreprocessor(preprocessing)
    return Pipeline(first, network, heads[head]).eval()
