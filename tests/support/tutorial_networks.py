"""Everyday networks as tutorials write them, each with the inputs that it is exported with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlzoo.zoo.sources.input_spec import InputSpec


class CifarNet(nn.Module):
    """The classifier of PyTorch's 60-minute tutorial."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x


class ViewNet(nn.Module):
    """A convolution, then ``x.view(-1, 16 * 5 * 5)``, as before ``torch.flatten``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc = nn.Linear(16 * 5 * 5, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, 16 * 5 * 5)
        y: Tensor = self.fc(x)
        return y


class MnistNet(nn.Module):
    """PyTorch's MNIST example: dropout, and log probabilities as the output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.max_pool2d(x, 2)
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = self.dropout2(x)
        return F.log_softmax(self.fc2(x), dim=1)


class AutoEncoder(nn.Module):
    """A dense autoencoder of flattened 28 x 28 images, with a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 8)
        )
        self.decoder = nn.Sequential(
            nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 784)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(self.encoder(x)))


class ConvAutoEncoder(nn.Module):
    """Strided convolutions, and transposed ones back to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 7),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(64, 32, 7),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.decoder(self.encoder(x))
        return y


class VaeEncoder(nn.Module):
    """The encoder of a variational autoencoder: mean and logarithm of the variance."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 400)
        self.fc21 = nn.Linear(400, 20)
        self.fc22 = nn.Linear(400, 20)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h1 = F.relu(self.fc1(x.view(-1, 784)))
        return self.fc21(h1), self.fc22(h1)


class Vae(nn.Module):
    """PyTorch's VAE example: it samples in eval mode, too, unless told otherwise."""

    def __init__(self, *, samples_in_eval: bool = False) -> None:
        super().__init__()
        self.encoder = VaeEncoder()
        self.fc3 = nn.Linear(20, 400)
        self.fc4 = nn.Linear(400, 784)
        self.samples_in_eval = samples_in_eval

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        if not self.training and not self.samples_in_eval:
            return mu
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encoder(x)
        z = self.reparameterize(mu, logvar)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar


class DoubleConv(nn.Module):
    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(num_in, num_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_out, num_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.double_conv(x)
        return y


class UNet(nn.Module):
    """Two scales, with upsampling, the padding by differences of sizes, and skips."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = DoubleConv(3, 8)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(8, 16))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(16, 16))
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv1 = DoubleConv(32, 8)
        self.up2 = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.conv2 = DoubleConv(16, 8)
        self.outc = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        y = self.conv1(torch.cat([x2, self._padded(self.up(x3), x2)], dim=1))
        y = self.conv2(torch.cat([x1, self._padded(self.up2(y), x1)], dim=1))
        logits: Tensor = self.outc(y)
        return logits

    @staticmethod
    def _padded(x: Tensor, like: Tensor) -> Tensor:
        dy, dx = like.size(2) - x.size(2), like.size(3) - x.size(3)
        return F.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])


class Siamese(nn.Module):
    """Two images through one network; the probability that they show the same."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU()
        )
        self.fc = nn.Sequential(nn.Linear(2 * 16 * 11 * 11, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward_once(self, x: Tensor) -> Tensor:
        y: Tensor = self.cnn(x)
        return y.view(y.size()[0], -1)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        output = torch.cat((self.forward_once(input1), self.forward_once(input2)), 1)
        return torch.sigmoid(self.fc(output))


def dcgan_weights(module: nn.Module) -> None:
    """The initialization of PyTorch's DCGAN tutorial."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight.data, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight.data, 1.0, 0.02)
        nn.init.constant_(module.bias.data, 0)


def dcgan_generator() -> nn.Module:
    layers: list[nn.Module] = []
    sizes = [100, 64, 32, 16, 8]
    for i, (num_in, num_out) in enumerate(pairwise(sizes)):
        stride, padding = (1, 0) if i == 0 else (2, 1)
        layers += [
            nn.ConvTranspose2d(num_in, num_out, 4, stride, padding, bias=False),
            nn.BatchNorm2d(num_out),
            nn.ReLU(True),
        ]
    network = nn.Sequential(*layers, nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False), nn.Tanh())
    return network.apply(dcgan_weights)


def dcgan_discriminator() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for num_in, num_out in ((8, 16), (16, 32), (32, 64)):
        layers += [
            nn.Conv2d(num_in, num_out, 4, 2, 1, bias=False),
            nn.BatchNorm2d(num_out),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    network = nn.Sequential(*layers, nn.Conv2d(64, 1, 4, 1, 0, bias=False), nn.Sigmoid())
    return network.apply(dcgan_weights)


class LstmClassifier(nn.Module):
    """Sentiment of a text of word numbers: an embedding, a two-way LSTM and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 32, padding_idx=0)
        self.lstm = nn.LSTM(32, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(48, 2)

    def forward(self, text: Tensor) -> Tensor:
        embedded = self.dropout(self.embedding(text))
        _, (hidden, _) = self.lstm(embedded)
        y: Tensor = self.fc(self.dropout(torch.cat((hidden[-2], hidden[-1]), dim=1)))
        return y


class SuperResolution(nn.Module):
    """PyTorch's super-resolution example, with ``PixelShuffle``."""

    def __init__(self, upscale_factor: int = 3) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(1, 64, (5, 5), (1, 1), (2, 2))
        self.conv2 = nn.Conv2d(64, 64, (3, 3), (1, 1), (1, 1))
        self.conv3 = nn.Conv2d(64, 32, (3, 3), (1, 1), (1, 1))
        self.conv4 = nn.Conv2d(32, upscale_factor**2, (3, 3), (1, 1), (1, 1))
        self.pixel_shuffle = nn.PixelShuffle(upscale_factor)
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.orthogonal_(conv.weight, nn.init.calculate_gain("relu"))
        nn.init.orthogonal_(self.conv4.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x))
        x = self.relu(self.conv3(x))
        y: Tensor = self.pixel_shuffle(self.conv4(x))
        return y


class ConvLayer(nn.Module):
    def __init__(
        self, num_in: int, num_out: int, size: int, stride: int, scale: int = 1
    ) -> None:
        super().__init__()
        self.scale = scale
        self.reflection_pad = nn.ReflectionPad2d(size // 2)
        self.conv2d = nn.Conv2d(num_in, num_out, size, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale > 1:
            x = F.interpolate(x, mode="nearest", scale_factor=self.scale)
        y: Tensor = self.conv2d(self.reflection_pad(x))
        return y


class ResidualBlock(nn.Module):
    def __init__(self, num: int) -> None:
        super().__init__()
        self.conv1, self.in1 = ConvLayer(num, num, 3, 1), nn.InstanceNorm2d(num, affine=True)
        self.conv2, self.in2 = ConvLayer(num, num, 3, 1), nn.InstanceNorm2d(num, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.in1(self.conv1(x)))
        y: Tensor = self.in2(self.conv2(out)) + x
        return y


class StyleTransfer(nn.Module):
    """PyTorch's fast neural style example, narrower."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.in1 = ConvLayer(3, 8, 9, 1), nn.InstanceNorm2d(8, affine=True)
        self.conv2, self.in2 = ConvLayer(8, 16, 3, 2), nn.InstanceNorm2d(16, affine=True)
        self.conv3, self.in3 = ConvLayer(16, 32, 3, 2), nn.InstanceNorm2d(32, affine=True)
        self.res1, self.res2 = ResidualBlock(32), ResidualBlock(32)
        self.deconv1, self.in4 = ConvLayer(32, 16, 3, 1, 2), nn.InstanceNorm2d(16, affine=True)
        self.deconv2, self.in5 = ConvLayer(16, 8, 3, 1, 2), nn.InstanceNorm2d(8, affine=True)
        self.deconv3 = ConvLayer(8, 3, 9, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.in1(self.conv1(x)))
        y = self.relu(self.in2(self.conv2(y)))
        y = self.relu(self.in3(self.conv3(y)))
        y = self.res2(self.res1(y))
        y = self.relu(self.in4(self.deconv1(y)))
        y = self.relu(self.in5(self.deconv2(y)))
        image: Tensor = self.deconv3(y)
        return image


class SmallVit(nn.Module):
    """Patches by a convolution, a class token, learned positions and two encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 32) * 0.02)
        self.pos_embedding = nn.Parameter(torch.randn(1, 65, 32) * 0.02)
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        cls = self.cls_token.expand(x.shape[0], -1, -1)
        x = self.transformer(torch.cat((cls, x), dim=1) + self.pos_embedding)
        y: Tensor = self.head(self.norm(x[:, 0]))
        return y


class Seq2SeqEncoder(nn.Module):
    """The encoder of a translation model: outputs of every word, and the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(200, 32)
        self.gru = nn.GRU(32, 32, batch_first=True)
        self.dropout = nn.Dropout(0.1)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        output, hidden = self.gru(self.dropout(self.embedding(source)))
        return output, hidden.squeeze(0)


class DenoisingMlp(nn.Module):
    """Of a diffusion tutorial: points of the plane and the time, with a sinusoidal embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 32, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 2)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        frequencies = torch.exp(
            -torch.arange(16, device=x.device) * (torch.log(torch.tensor(10000.0)) / 15)
        )
        angles = t * frequencies
        embedded = torch.cat((angles.sin(), angles.cos()), dim=-1)
        y: Tensor = self.layers(torch.cat((x, embedded), dim=-1))
        return y


class AdaptiveNet(nn.Module):
    """Convolutions, a global average and a linear layer, as most classifiers end."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d((1, 1)),
        )
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return y


class InvertedResidual(nn.Module):
    """MobileNetV2's block, with ReLU6."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(8, 48, 1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU6(inplace=True),
            nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU6(inplace=True),
            nn.Conv2d(48, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv(x)
        return y


class SqueezeExcitation(nn.Module):
    """A block that weighs its channels."""

    def __init__(self, channels: int = 16, reduction: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        b, c, _, _ = x.size()
        y = self.fc(self.avg_pool(x).view(b, c)).view(b, c, 1, 1)
        return x * y.expand_as(x)


@dataclass(frozen=True)
class Tutorial:
    """A network and its inputs."""

    build: Callable[[], nn.Module]
    inputs: tuple[InputSpec, ...]


def _image(*shape: int, name: str = "x") -> InputSpec:
    return InputSpec(name=name, shape=(1, *shape))


def _words(length: int, vocabulary: int, name: str) -> InputSpec:
    return InputSpec(name=name, shape=(1, length), dtype="int64", high=vocabulary - 1)


TUTORIALS = {
    "cifar-net": Tutorial(CifarNet, (_image(3, 32, 32),)),
    "view-net": Tutorial(ViewNet, (_image(1, 32, 32),)),
    "mnist-net": Tutorial(MnistNet, (_image(1, 28, 28),)),
    "autoencoder": Tutorial(AutoEncoder, (_image(784),)),
    "conv-autoencoder": Tutorial(ConvAutoEncoder, (_image(1, 28, 28),)),
    "vae-encoder": Tutorial(VaeEncoder, (_image(1, 28, 28),)),
    "vae": Tutorial(Vae, (_image(1, 28, 28),)),
    "u-net": Tutorial(UNet, (_image(3, 36, 28),)),
    "siamese": Tutorial(
        Siamese, (_image(1, 28, 28, name="input1"), _image(1, 28, 28, name="input2"))
    ),
    "dcgan-generator": Tutorial(dcgan_generator, (_image(100, 1, 1, name="z"),)),
    "dcgan-discriminator": Tutorial(dcgan_discriminator, (_image(3, 64, 64),)),
    "lstm-classifier": Tutorial(LstmClassifier, (_words(20, 1000, "text"),)),
    "super-resolution": Tutorial(SuperResolution, (_image(1, 24, 24),)),
    "style-transfer": Tutorial(StyleTransfer, (_image(3, 32, 32),)),
    "small-vit": Tutorial(SmallVit, (_image(3, 32, 32),)),
    "seq2seq-encoder": Tutorial(Seq2SeqEncoder, (_words(10, 200, "source"),)),
    "denoising-mlp": Tutorial(DenoisingMlp, (_image(2), InputSpec(name="t", shape=(1, 1)))),
    "adaptive-net": Tutorial(AdaptiveNet, (_image(3, 32, 32),)),
    "inverted-residual": Tutorial(InvertedResidual, (_image(8, 16, 16),)),
    "squeeze-excitation": Tutorial(SqueezeExcitation, (_image(3, 16, 16),)),
}


def build_tutorial(name: str, seed: int = 0) -> nn.Module:
    """A network with the weights that its layers draw, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TUTORIALS[name].build().eval()
