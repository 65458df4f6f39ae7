"""A network of your own, for ``dlzoo export small_net.py:SmallNet --input x=1x3x32x32``."""

import torch
from torch import Tensor, nn


class SmallNet(nn.Module):
    """Three convolutions and a linear layer: [N, 3, H, W] to [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 16, 3, padding=1)
        self.stem = nn.Sequential(conv, nn.BatchNorm2d(16), nn.Mish())
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y_NCHW = torch.relu(self.down(self.stem(x)))
        y_NCHW = y_NCHW + nn.functional.gelu(self.mix(y_NCHW))
        scores_N5: Tensor = self.head(y_NCHW.mean((2, 3)))
        return scores_N5
