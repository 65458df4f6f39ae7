"""Random weights of gates behind global means: what is scaled up must not be float32's error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlzoo.zoo.initialization import signal as initialization
from dlzoo.zoo.initialization.signal import MIN_STD_SHARE, scale_to_unit_variance


class Gated(nn.Module):
    """A convolution with squeeze and excitation: Hu et al. 2018, figure 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.squeeze = nn.Conv2d(width, width // 4, 1)
        self.excite = nn.Conv2d(width // 4, width, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x_NCHW = nn.functional.silu(self.norm(self.conv(x_NCHW)))
        mean = nn.functional.silu(self.squeeze(x_NCHW.mean((2, 3), keepdim=True)))
        return x_NCHW * torch.sigmoid(self.excite(mean))


def largest_common_response(size: int) -> float:
    """RMS of what a gate's first layer makes of a mean, before its bias takes it away."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 1), *(Gated(16) for _ in range(4))).eval()
    scale_to_unit_variance(network, (3, size, size), seed=0)
    responses = []
    for gated in network[1:]:
        bias = gated.squeeze.bias.view(1, -1, 1, 1)
        gated.squeeze.register_forward_hook(
            lambda part, args, y, bias=bias: responses.append(
                (y - bias).square().mean().sqrt()
            )
        )
    with torch.no_grad():
        network(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)))
    assert len(responses) == 4
    return float(max(responses))


def test_what_all_images_share_is_not_scaled_up_without_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Rounding errors of a mean are a share of the mean: they would be scaled up by as much.
    limit = 1.2 / MIN_STD_SHARE
    assert largest_common_response(128) < limit
    monkeypatch.setattr(initialization, "MIN_STD_SHARE", 0.0)
    assert largest_common_response(128) > 5 * limit
