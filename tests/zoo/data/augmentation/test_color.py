"""Colours against Pillow, colorsys and the formulas in float64."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from dlzoo.zoo.data.augmentation.color import (
    BrightnessContrast,
    HueSaturation,
    turn_hue_and_scale_saturation,
)
from dlzoo.zoo.data.sample_draws import SampleDraws

#: A few roundings of numbers up to 6 in float32.
ROUNDING = 4e-6


def draws(count: int) -> SampleDraws:
    return SampleDraws(0, 7, range(count))


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_and_contrast_are_the_formula(channels: int) -> None:
    x = torch.from_numpy(pixels(8, channels, 9, 11)).float() / 255
    out = BrightnessContrast(brightness=0.5, contrast=0.7).change(x, draws(8))
    b = draws(8).uniform("brightness", 0.5, 1.5).double()
    c = draws(8).uniform("contrast", 0.3, 1.7).double()
    weights = {1: [1.0], 3: [0.299, 0.587, 0.114]}[channels]
    for k in range(8):
        image = (x[k].double() * b[k]).clamp(0, 1)
        mean = (image * torch.tensor(weights).double()[:, None, None]).sum(0).mean()
        expected = (mean + c[k] * (image - mean)).clamp(0, 1)
        assert (out[k] - expected).abs().max() < ROUNDING
    assert out.min() == 0 and out.max() == 1


@pytest.mark.parametrize("factor", [0.25, 0.9, 1.6])
def test_brightness_is_pillows(factor: float) -> None:
    image = pixels(12, 10, 3)
    theirs = np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    out = _with_factors(x, brightness=factor, contrast=1.0)
    # Pillow cuts off to a whole level.
    assert np.abs(out[0].permute(1, 2, 0).numpy() * 255 - theirs).max() <= 1 + 1e-3


@pytest.mark.parametrize("factor", [0.25, 0.9, 1.6])
def test_contrast_is_pillows(factor: float) -> None:
    image = pixels(12, 10, 3)
    theirs = np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    out = _with_factors(x, brightness=1.0, contrast=factor)
    # One level where Pillow cuts off, and one for its mean, which it rounds, of rounded greys.
    assert np.abs(out[0].permute(1, 2, 0).numpy() * 255 - theirs).max() <= 2


def _with_factors(x: torch.Tensor, *, brightness: float, contrast: float) -> torch.Tensor:
    class Fixed(SampleDraws):
        def uniform(
            self, stream: str, low: float = 0, high: float = 1, shape=()
        ) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return torch.tensor([{"brightness": brightness, "contrast": contrast}[stream]])

    return BrightnessContrast().change(x, Fixed(0, 0, [0]))


def test_hue_and_saturation_are_colorsys() -> None:
    # Random colours, and all on the edges between the cases: greys, two channels equal, pure.
    levels = np.array([0, 64, 128, 255], np.uint8)
    corners = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    colors = np.concatenate([corners, pixels(192, 3)]).astype(np.float32) / 255
    x = torch.from_numpy(colors).T.reshape(1, 3, 16, 16).repeat(6, 1, 1, 1)
    turns = torch.tensor([-0.5, -0.3, 0.0, 0.1, 0.5, 0.25])
    factors = torch.tensor([1.0, 0.0, 1.0, 2.0, 0.5, 1.3])
    out = turn_hue_and_scale_saturation(x, turns, factors)
    for k, (turn, factor) in enumerate(zip(turns.tolist(), factors.tolist(), strict=True)):
        expected = []
        for color in colors.astype(np.float64):
            h, s, v = colorsys.rgb_to_hsv(*color)
            expected.append(colorsys.hsv_to_rgb((h + turn) % 1, min(s * factor, 1), v))
        got = out[k].reshape(3, -1).T.double().numpy()
        assert np.abs(got - np.array(expected)).max() < ROUNDING, (turn, factor)


def test_hue_and_saturation_are_kornias() -> None:
    import kornia.enhance

    x = torch.from_numpy(pixels(4, 3, 8, 8)).float() / 255
    out = HueSaturation(hue=0.2, saturation=0.5).change(x, draws(4))
    turn = draws(4).uniform("hue", -0.2, 0.2)
    factor = draws(4).uniform("saturation", 0.5, 1.5)
    theirs = kornia.enhance.adjust_saturation(
        kornia.enhance.adjust_hue(x, 2 * torch.pi * turn), factor
    )
    assert (out - theirs).abs().max() < 2e-5
    assert (out - x).abs().max() > 0.1


def test_neutral_factors_change_nothing_but_roundings() -> None:
    x = torch.from_numpy(pixels(4, 3, 8, 8)).float() / 255
    for neutral in (
        BrightnessContrast(brightness=0, contrast=0),
        HueSaturation(hue=0, saturation=0),
    ):
        assert (neutral.change(x, draws(4)) - x).abs().max() < ROUNDING


def test_greys_stay_grey() -> None:
    x = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8).expand(5, 3, 8, 8)
    out = HueSaturation(hue=0.5, saturation=1).change(x, draws(5))
    assert torch.equal(out, x)
