"""Draws that are equal on every machine."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from dlzoo.zoo.initialization.draws import PortableBits, PortableDraws


def test_values_follow_from_the_bits_of_pcg64() -> None:
    tensor = PortableBits(3, 4).fill(torch.empty(5), mean=1.0, width=0.5)
    words = np.random.PCG64(np.random.SeedSequence((3, 4))).random_raw(2)
    # Four 16-bit integers to a word, the low end first.
    numbers = [(int(word) >> shift) & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    signed = [n - 2**16 if n >= 2**15 else n for n in numbers]
    expected = [
        np.float32(np.float32(k + 0.5) * np.float32(0.5 / 2**16)) + np.float32(1.0)
        for k in signed
    ]
    assert tensor.tolist() == [float(value) for value in expected[:5]]


def test_bits_are_these() -> None:
    # Checked against PCG64 (XSL RR 128/64) written out in integers.
    assert PortableBits(0).levels(4).tolist() == [-32160.5, -9789.5, -5168.5, -23792.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layout_and_precision_do_not_change_the_values(dtype: torch.dtype) -> None:
    straight = PortableBits(1).fill(torch.empty(6, 4), 0.25, 1.0)
    turned = torch.empty(4, 6, dtype=dtype).t()
    assert not turned.is_contiguous()
    PortableBits(1).fill(turned, 0.25, 1.0)
    assert torch.equal(turned.float(), straight)


def test_mean_and_deviation() -> None:
    with PortableDraws(0):
        normal = torch.empty(400, 500).normal_(0.5, 2.0)
        uniform = torch.empty(400, 500).uniform_(-1.0, 3.0)
        standard = torch.empty(400, 500).normal_()
    # 6 standard errors of the mean and the deviation of 200,000 uniform draws.
    for values, mean, std in (
        (normal, 0.5, 2.0),
        (uniform, 1.0, 4 / math.sqrt(12)),
        (standard, 0.0, 1.0),
    ):
        assert abs(values.mean().item() - mean) < 6 * std / math.sqrt(200_000)
        assert abs(values.std().item() - std) < 6 * std * math.sqrt(0.2 / 200_000)
        correlation = torch.corrcoef(torch.stack([values[0], values[1]]))[0, 1].item()
        assert abs(correlation) < 6 / math.sqrt(500)
    assert uniform.min() >= -1.0 and uniform.max() <= 3.0


def test_every_initialization_of_torch_takes_them() -> None:
    def draw() -> list[torch.Tensor]:
        return [
            nn.init.trunc_normal_(torch.empty(50, 40), std=0.02),
            nn.init.trunc_normal_(torch.empty(50, 40), std=1.0, a=1.5, b=2.5),
            nn.init.kaiming_normal_(torch.empty(50, 40)),
            nn.init.xavier_uniform_(torch.empty(50, 40)),
            nn.Conv2d(3, 8, 3).weight.detach(),
            nn.Linear(30, 8).bias.detach(),
        ]

    before = torch.random.get_rng_state()
    with PortableDraws(5):
        first = draw()
    with PortableDraws(5):
        second = draw()
    with PortableDraws(6):
        other = draw()
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, same, different in zip(first, second, other, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)
    assert first[1].min() >= 1.5 and first[1].max() <= 2.5


def test_placeholders_are_cheap_but_valid() -> None:
    with PortableDraws(0, is_placeholder=True):
        weight = nn.init.trunc_normal_(torch.empty(1000, 300), std=0.02).flatten()
        nn.init.trunc_normal_(torch.empty(1000, 300), std=1.0, a=2.0, b=2.5)
    assert torch.equal(weight[: 2**17], weight[2**17 : 2**18])
    assert weight.isfinite().all() and weight.abs().max() < 0.05
    assert len(weight.unique()) > 1000


def test_drawing_loads_no_compiler() -> None:
    # torch._dynamo takes a second or more, which "dlzoo info" would feel.
    program = (
        "import sys, torch\n"
        "from dlzoo.zoo.initialization.draws import PortableDraws\n"
        "with PortableDraws(0): torch.nn.Linear(2, 2)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
