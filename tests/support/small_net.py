"""A network that exports in a second and holds what trips exporters up."""

import torch
from torch import Tensor, nn


class SmallNet(nn.Module):
    """Convolution, batch norm, pooling, dropout, a shared activation and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout()
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.act(self.norm(self.conv(x))))
        y = y + self.act(-y)
        scores: Tensor = self.fc(self.drop(torch.flatten(self.squeeze(y), 1)))
        return scores


def build_small_net() -> SmallNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SmallNet()
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.5)
        nn.init.normal_(net.norm.running_mean)
        nn.init.uniform_(net.norm.running_var, 0.5, 2.0)
    return net.eval()
