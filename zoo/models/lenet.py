"""LeNet-5, as published in 1998 and as in today's textbooks.

N   samples          H, W   height, width
C   channels         K      classes
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from dlzoo.errors import ArgumentError
from dlzoo.zoo.data.preprocessing import MNIST_32, MNIST_LENET5
from dlzoo.zoo.layers.activation import ScaledTanh
from dlzoo.zoo.layers.connection_table import TableConvolution
from dlzoo.zoo.layers.layer_registry import LayerChoice, resolve_layer
from dlzoo.zoo.layers.pool import TrainableSubsampling
from dlzoo.zoo.layers.rbf import RBFOutput
from dlzoo.zoo.registry import Paper, register_model

PAPER = Paper(
    title="Gradient-Based Learning Applied to Document Recognition",
    authors="LeCun, Bottou, Bengio, Haffner",
    year=1998,
    url="https://doi.org/10.1109/5.726791",
)

#: Table I: which maps of S2 (rows) each map of C3 (column) is connected with. The first six have
#: three neighbouring maps, the next six four neighbours, three four other maps, one all of them.
CONNECTIONS = (
    "X...XXX..XXXX.XX",
    "XX...XXX..XXXX.X",
    "XXX...XXX..X.XXX",
    ".XXX..XXXX..X.XX",
    "..XXX..XXXX.XX.X",
    "...XXX..XXXX.XXX",
)

#: The codes of the ten digits: 7 x 12 pictures, # is +1 and . is -1. They are drawn in the style of
#: the paper's own, which its figure 3 shows.
BITMAPS = """
..###..  ...#...  .#####.  .#####.  .....#.  #######  ..####.  #######  .#####.  .#####.
.#...#.  ..##...  #.....#  #.....#  ....##.  #......  .#.....  ......#  #.....#  #.....#
#.....#  .#.#...  #.....#  ......#  ...#.#.  #......  #......  .....#.  #.....#  #.....#
#.....#  ...#...  ......#  ......#  ..#..#.  #......  #......  .....#.  #.....#  #.....#
#.....#  ...#...  .....#.  ..####.  .#...#.  ######.  #.###..  ....#..  .#...#.  .#...##
#.....#  ...#...  ....#..  ..####.  #....#.  .....##  ##...#.  ....#..  ..###..  ..###.#
#.....#  ...#...  ...#...  ......#  #######  ......#  #.....#  ...#...  .#...#.  ......#
#.....#  ...#...  ..#....  ......#  .....#.  ......#  #.....#  ...#...  #.....#  ......#
#.....#  ...#...  .#.....  ......#  .....#.  ......#  #.....#  ..#....  #.....#  ......#
#.....#  ...#...  #......  #.....#  .....#.  #.....#  #.....#  ..#....  #.....#  .....#.
.#...#.  ...#...  #......  #.....#  .....#.  .#...#.  .#...#.  .#.....  #.....#  ....#..
..###..  .#####.  #######  .#####.  .....#.  ..###..  ..###..  .#.....  .#####.  .###...
"""


def connection_table() -> list[list[int]]:
    """For each of C3's 16 maps, the maps of S2 that it is connected with."""
    return [
        [row for row, line in enumerate(CONNECTIONS) if line[column] == "X"]
        for column in range(len(CONNECTIONS[0]))
    ]


def digit_codes(num_classes: int) -> Tensor:
    """The codes [K, 84] of +1 and -1; those beyond the ten digits are drawn at random.

    Source:
        LeCun et al. 1998, section II.B: the components are +1 or -1; besides pictures it
        mentions codes drawn with equal probabilities.
    """
    rows = [line.split() for line in BITMAPS.split("\n") if line]
    code_KD = torch.tensor(
        [[1.0 if c == "#" else -1.0 for row in rows for c in row[d]] for d in range(10)]
    )
    if num_classes <= 10:
        return code_KD[:num_classes]
    return torch.cat([code_KD, random_codes(num_classes - 10)])


def random_codes(num_classes: int) -> Tensor:
    """Codes [K, 84] of +1 and -1 with equal probability, all at similar distances.

    Source:
        LeCun et al. 1998, section II.B, which mentions them besides pictures, for classes that do
        not look similar to each other as digits do.
    """
    return torch.randint(0, 2, (num_classes, 7 * 12)) * 2.0 - 1.0


class LeNet5(nn.Module):
    """The network of figure 2, layer by layer, with the paper's names.

    Shape:
        [N, C, 32, 32] to [N, K]: **negated penalties**. The paper's output is the squared
        distance to each class's code, and the smallest wins; here the largest wins.

    ONNX:
        Conv, Tanh, AveragePool, Gemm, and the distance as Sub, Mul, ReduceSum, Neg.
    """

    def __init__(self, num_classes: int, num_channels: int, codes: str) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(num_channels, 6, 5)
        self.s2 = TrainableSubsampling(6)
        self.c3 = TableConvolution(6, connection_table(), 5)
        self.s4 = TrainableSubsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.squash = ScaledTanh()
        self.output = RBFOutput(
            random_codes(num_classes) if codes == "random" else digit_codes(num_classes)
        )
        # Appendix A: uniform between -2.4/f and 2.4/f, f the number of inputs of a unit.
        for layer in (self.c1, self.c5, self.f6):
            bound = 2.4 / layer.weight[0].numel()
            nn.init.uniform_(layer.weight, -bound, bound)
            assert layer.bias is not None
            nn.init.uniform_(layer.bias, -bound, bound)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Compute the negated penalty of each class."""
        x_NCHW = self.squash(self.c1(x_NCHW))
        x_NCHW = self.squash(self.s2(x_NCHW))
        x_NCHW = self.squash(self.c3(x_NCHW))
        x_NCHW = self.squash(self.s4(x_NCHW))
        x_NCHW = self.squash(self.c5(x_NCHW))
        x_ND = self.squash(self.f6(torch.flatten(x_NCHW, 1)))
        logits_NK: Tensor = self.output(x_ND)
        return logits_NK


@register_model(
    family="LeNet",
    summary="As in the paper: trainable subsampling, the connection table of C3, scaled tanh, "
    "RBF output. Its logits are negated penalties (squared distances to the classes' codes).",
    paper=PAPER,
    input_shape=(1, 32, 32),
    num_classes=10,
    num_parameters=60_000,
    preprocessing=MNIST_LENET5,
    labels="mnist",
    min_image_size=(32, 32),
    rho2_limit=6.0,
    rhomax_limit=12.0,
    limit_reason="Every layer ends in a tanh, and ONNX Runtime's on the CPU (a rational "
    "approximation) has 2.7 times the error of PyTorch's: RMS 3.7e-8 against 1.4e-8 on N(0, 1).",
)
def lenet5(
    *,
    num_classes: int = 10,
    num_channels: int = 1,
    codes: Literal["digits", "random"] = "digits",
) -> nn.Module:
    """LeNet-5 as in the paper: 156 + 12 + 1,516 + 32 + 48,120 + 10,164 parameters.

    The classes' codes are pictures of the digits, or random for classes that are not digits.

    Raises:
        ArgumentError: the kind of codes is unknown.
    """
    if codes not in ("digits", "random"):
        raise ArgumentError(f'`codes` got {codes!r}, expected "digits" or "random".')
    return LeNet5(num_classes, num_channels, codes)


@register_model(
    family="LeNet",
    summary="Today's textbook form: ReLU, max pooling, every map connected, a linear output.",
    paper=PAPER,
    input_shape=(1, 32, 32),
    num_classes=10,
    num_parameters=61_706,
    preprocessing=MNIST_32,
    labels="mnist",
    min_image_size=(32, 32),
)
def lenet5_relu(
    *, num_classes: int = 10, num_channels: int = 1, activation: LayerChoice = "relu"
) -> nn.Module:
    """LeNet-5 with ReLU and max pooling: 156 + 2,416 + 48,120 + 10,164 + 850 parameters."""
    act = resolve_layer(activation, "activation")
    layers: list[tuple[str, nn.Module]] = [
        ("c1", nn.Conv2d(num_channels, 6, 5)),
        ("act1", act()),
        ("s2", nn.MaxPool2d(2)),
        ("c3", nn.Conv2d(6, 16, 5)),
        ("act3", act()),
        ("s4", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("c5", nn.Linear(16 * 5 * 5, 120)),
        ("act5", act()),
        ("f6", nn.Linear(120, 84)),
        ("act6", act()),
        ("output", nn.Linear(84, num_classes)),
    ]
    return nn.Sequential(OrderedDict(layers))
