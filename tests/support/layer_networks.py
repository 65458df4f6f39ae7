"""Small networks, one or more for every kind of layer: clean ones, which no proof may refuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.zoo.layers.activation import ScaledTanh


@dataclass(frozen=True)
class LayerNetwork:
    """How to build a network, and the shape of its input (None: a batch of integers below 10)."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2, 3, 16, 16)
    #: N(0, 1) where False, uniform in [0, 1) where True.
    is_uniform: bool = False


class Function(nn.Module):
    """A convolution, a function of what it gives, and scores."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def behind_conv(*layers: nn.Module, channels: int = 6) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(3, channels, 3), *layers)


def function(of: Callable[[Tensor], Tensor], channels: int = 6) -> LayerNetwork:
    return LayerNetwork(lambda: Function(of, channels))


def layer(build: Callable[[], nn.Module], channels: int = 6) -> LayerNetwork:
    return LayerNetwork(lambda: nn.Sequential(nn.Conv2d(3, channels, 3), build()))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.cell = kind(8, 12, batch_first=True, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cell(x)[0]
        return out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(4, 8, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        gate = self.up(F.silu(self.down(y.mean((2, 3), keepdim=True))))
        return y * torch.sigmoid(gate)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return F.relu(y + self.body(y))


class FlattensByView(nn.Module):
    """The most common idiom of a tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(16 * 5 * 5, 40), nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(x.size(0), -1)
        out: Tensor = self.fc2(F.relu(self.fc1(x)))
        return out


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.gelu(self.conv(x))
        return y, self.head(y.mean((2, 3)))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 4, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(F.leaky_relu(self.down(x), 0.1)))


class Masked(nn.Module):
    """Most outputs are a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 20)
        self.register_buffer("legal", torch.arange(20) % 4 == 0)

    def forward(self, x: Tensor) -> Tensor:
        legal = self.legal
        assert isinstance(legal, Tensor)
        return self.fc(x).masked_fill(~legal, -1e9)


class DependsOnBatch(nn.Module):
    """Samples that depend on each other, through statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


def fully_connected(*widths: int) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return build


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


NETWORKS: dict[str, LayerNetwork] = {
    "linear 192 to 10": LayerNetwork(lambda: nn.Linear(192, 10), (2, 192), is_uniform=True),
    "linear 192 to 1000": LayerNetwork(lambda: nn.Linear(192, 1000), (2, 192)),
    "linear without bias": LayerNetwork(lambda: nn.Linear(64, 8, bias=False), (2, 64)),
    "mlp": LayerNetwork(fully_connected(64, 64, 32, 5), (2, 64)),
    "mlp on 4096": LayerNetwork(fully_connected(4096, 64, 10), (2, 4096)),
    "bilinear": LayerNetwork(
        lambda: nn.Sequential(nn.Linear(8, 8), nn.Unflatten(1, (2, 4)), nn.Flatten()), (2, 8)
    ),
    "view": LayerNetwork(FlattensByView, (2, 3, 32, 32)),
    "residual": LayerNetwork(Residual),
    "squeeze and excite": LayerNetwork(SqueezeExcite),
    "two outputs": LayerNetwork(TwoOutputs),
    "autoencoder": LayerNetwork(Autoencoder),
    "masked": LayerNetwork(Masked, (2, 12)),
    "batch statistics": LayerNetwork(DependsOnBatch),
    "conv1d": LayerNetwork(lambda: nn.Conv1d(4, 8, 5, padding=2), (2, 4, 40)),
    "conv3d": LayerNetwork(lambda: nn.Conv3d(2, 4, 3), (2, 2, 8, 8, 8)),
    "depthwise": LayerNetwork(
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)), (2, 8, 12, 12)
    ),
    "dilated": LayerNetwork(lambda: nn.Conv2d(3, 4, 3, dilation=2)),
    "strided": LayerNetwork(lambda: nn.Conv2d(3, 4, 7, stride=4, padding=3)),
    "transposed": LayerNetwork(lambda: nn.ConvTranspose2d(3, 4, 3, stride=2)),
    "reflection": LayerNetwork(lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
    "replication": LayerNetwork(
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate")
    ),
    "batch norm": layer(lambda: nn.BatchNorm2d(6)),
    "group norm": layer(lambda: nn.GroupNorm(2, 6)),
    "instance norm": layer(lambda: nn.InstanceNorm2d(6, affine=True)),
    "layer norm": layer(lambda: nn.LayerNorm([14, 14])),
    "layer norm of channels": LayerNetwork(
        lambda: nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32)), (2, 7, 8)
    ),
    "rms norm": LayerNetwork(
        lambda: nn.Sequential(nn.Linear(8, 32), nn.RMSNorm(32)), (2, 7, 8)
    ),
    "local response norm": layer(lambda: nn.LocalResponseNorm(5)),
    "relu6": layer(nn.ReLU6),
    "leaky relu": layer(lambda: nn.LeakyReLU(0.2)),
    "prelu": layer(lambda: nn.PReLU(6)),
    "elu": layer(nn.ELU),
    "selu": layer(nn.SELU),
    "celu": layer(nn.CELU),
    "gelu": layer(nn.GELU),
    "gelu tanh": layer(lambda: nn.GELU(approximate="tanh")),
    "silu": layer(nn.SiLU),
    "scaled tanh": layer(ScaledTanh),
    "mish": layer(nn.Mish),
    "hardswish": layer(nn.Hardswish),
    "hardsigmoid": layer(nn.Hardsigmoid),
    "softplus": layer(nn.Softplus),
    "softsign": layer(nn.Softsign),
    "sigmoid": layer(nn.Sigmoid),
    "log sigmoid": layer(nn.LogSigmoid),
    "tanh": layer(nn.Tanh),
    "softmax of channels": layer(lambda: nn.Softmax(1)),
    "log softmax": layer(lambda: nn.LogSoftmax(1)),
    "max pool": layer(lambda: nn.MaxPool2d(3, 2, 1)),
    "max pool with ceil": layer(lambda: nn.MaxPool2d(3, 2, ceil_mode=True)),
    "average pool": layer(lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "lp pool": layer(lambda: nn.LPPool2d(2, 2)),
    "global average pool": layer(lambda: nn.AdaptiveAvgPool2d(1)),
    "global max pool": function(lambda y: y.amax((2, 3))),
    "adaptive average pool": layer(lambda: nn.AdaptiveAvgPool2d(5)),
    "mean over 300": LayerNetwork(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1)), (2, 3, 300, 300)
    ),
    "pixel shuffle": LayerNetwork(
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.PixelShuffle(2))
    ),
    "nearest": layer(lambda: nn.Upsample(scale_factor=2)),
    "bilinear upsampling": layer(lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "bilinear to an odd size": layer(
        lambda: nn.Upsample(size=(21, 19), mode="bilinear", align_corners=True)
    ),
    "bicubic": layer(lambda: nn.Upsample(scale_factor=2, mode="bicubic")),
    "variance": function(lambda y: y.var((2, 3))),
    "standard deviation": function(lambda y: y.std((2, 3))),
    "normalize": function(lambda y: F.normalize(y, dim=1)),
    "cosine": function(lambda y: F.cosine_similarity(y[:, :3], y[:, 3:], dim=1)),
    "norm": function(lambda y: y.flatten(1).norm(dim=1, keepdim=True)),
    "logsumexp": function(lambda y: y.flatten(2).logsumexp(2)),
    "cumulative sum": function(lambda y: y.cumsum(2)),
    "matrix product": function(lambda y: y.flatten(2) @ y.flatten(2).transpose(1, 2)),
    "einsum": function(lambda y: torch.einsum("bchw,bdhw->bcd", y, y)),
    "exp": function(lambda y: torch.exp(y)),
    "log1p": function(lambda y: torch.log1p(y.square())),
    "square root": function(lambda y: torch.sqrt(y.abs() + 0.1)),
    "power": function(lambda y: (y.abs() + 0.1) ** 1.7),
    "sine": function(lambda y: torch.sin(3 * y)),
    "arc tangent": function(lambda y: torch.atan(y)),
    "error function": function(torch.erf),
    "quotient": function(lambda y: y / (1 + y.abs())),
    "top k": function(lambda y: y.flatten(1).topk(5).values),
    "where": function(lambda y: torch.where(y > 0, y, y.square() * 0.1)),
    "concatenation": function(lambda y: torch.cat([y, -y, y * y], 1)),
    "lstm": LayerNetwork(lambda: Recurrent(nn.LSTM), (2, 9, 8)),
    "lstm both ways": LayerNetwork(lambda: Recurrent(nn.LSTM, bidirectional=True), (2, 9, 8)),
    "gru": LayerNetwork(lambda: Recurrent(nn.GRU), (2, 9, 8)),
    "rnn": LayerNetwork(lambda: Recurrent(nn.RNN), (2, 9, 8)),
    "attention": LayerNetwork(Attention, (2, 7, 16)),
    "encoder": LayerNetwork(encoder, (2, 7, 16)),
    "deep convolutions": LayerNetwork(
        lambda: nn.Sequential(
            *(
                m
                for _ in range(8)
                for m in (
                    nn.Conv2d(3, 3, 3, padding=1, bias=False),
                    nn.BatchNorm2d(3),
                    nn.ReLU(),
                )
            )
        )
    ),
}


def built(name: str, seed: int) -> tuple[nn.Module, Tensor]:
    """A network with weights and statistics from the seed, in eval mode, and an input."""
    entry = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = entry.build().eval()
        for part in module.modules():
            if (
                isinstance(part, nn.modules.batchnorm._NormBase)
                and part.running_mean is not None
            ):
                assert part.running_var is not None
                part.running_mean.normal_(std=0.5)
                part.running_var.uniform_(0.5, 2)
                if part.weight is not None:
                    nn.init.uniform_(part.weight, 0.5, 1.5)
                    nn.init.normal_(part.bias, std=0.3)
        x = torch.rand(entry.shape) if entry.is_uniform else torch.randn(entry.shape)
    return module, x
