"""Flips, crops, rotation and scaling against their definitions and other libraries."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage

from dlzoo.zoo.data.augmentation.geometry import (
    HorizontalFlip,
    RandomCrop,
    Rotation,
    Scaling,
    VerticalFlip,
    rotate,
)
from dlzoo.zoo.data.sample_draws import SampleDraws

#: Positions are float32 numbers of up to 64: they are off by 4e-6 pixels at most, and so is a
#: value between two pixels that differ by at most 1, along both axes.
POSITION_ERROR = 1e-5
SHAPES = [(6, 1, 28, 28), (5, 3, 32, 32), (4, 3, 17, 40)]


def images(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32))


def draws(count: int) -> SampleDraws:
    return SampleDraws(0, 0, range(count))


def float64_bilinear(
    image_HW: np.ndarray, row: np.ndarray, column: np.ndarray, fill: float
) -> np.ndarray:
    """The formula, with a border of ``fill``."""
    padded = np.pad(image_HW.astype(np.float64), 1, constant_values=fill)
    row = np.clip(row + 1, 0, padded.shape[0] - 1)
    column = np.clip(column + 1, 0, padded.shape[1] - 1)
    r = np.minimum(row.astype(int), padded.shape[0] - 2)
    c = np.minimum(column.astype(int), padded.shape[1] - 2)
    a, b = row - r, column - c
    return (
        (1 - a) * (1 - b) * padded[r, c]
        + (1 - a) * b * padded[r, c + 1]
        + a * (1 - b) * padded[r + 1, c]
        + a * b * padded[r + 1, c + 1]
    )


@pytest.mark.parametrize(("kind", "axis"), [(HorizontalFlip, 2), (VerticalFlip, 1)])
def test_flips_mirror_about_half_of_the_images(kind: type, axis: int) -> None:
    x, y = images(1000, 3, 4, 5), torch.arange(1000)
    out, target = kind().apply(x, y, draws(1000))
    is_flipped = [torch.equal(o, i.flip(axis)) for o, i in zip(out, x, strict=True)]
    is_same = [torch.equal(o, i) for o, i in zip(out, x, strict=True)]
    assert all(a != b for a, b in zip(is_flipped, is_same, strict=True))
    assert abs(sum(is_flipped) - 500) < 5 * math.sqrt(250)
    assert torch.equal(target, y)
    always, _ = kind(probability=1).apply(x, y, draws(1000))
    assert torch.equal(always, x.flip(axis + 1))
    assert kind(probability=0).apply(x, y, draws(1000))[0] is x


@pytest.mark.parametrize("shape", SHAPES)
def test_crop_is_numpys_pad_and_slice(shape: tuple[int, ...]) -> None:
    n, _, height, width = shape
    x = images(*shape)
    out = RandomCrop(padding=3, fill=0.25).change(x, draws(n))
    tops, lefts = draws(n).integers("top", 0, 7), draws(n).integers("left", 0, 7)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), constant_values=0.25)
    for k, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
        expected = padded[k, :, top : top + height, left : left + width]
        assert np.array_equal(out[k].numpy(), expected)


def test_crops_go_everywhere() -> None:
    x = torch.zeros(2000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    out = RandomCrop(padding=2).change(x, draws(2000))
    counts = out.sum((0, 1)).flatten()
    assert counts.sum() == 2000 and counts.min() > 80 - 5 * math.sqrt(80)


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (2, 1, 9, 9), (2, 1, 1, 1)])
@pytest.mark.parametrize("turns", [-4, -3, -2, -1, 0, 1, 2, 3])
def test_right_angles_move_pixels_exactly(shape: tuple[int, ...], turns: int) -> None:
    x = images(*shape)
    turned = rotate(x, torch.full((2,), 90.0 * turns), fill=0.5)
    assert torch.equal(turned, torch.rot90(x, turns, (2, 3)))


@pytest.mark.parametrize("shape", SHAPES)
def test_rotation_is_the_formula(shape: tuple[int, ...]) -> None:
    n, channels, height, width = shape
    x = images(*shape)
    out = Rotation(degrees=180, fill=0.25).change(x, draws(n))
    angles = draws(n).uniform("angle", -180, 180).double().numpy() * math.pi / 180
    i, j = np.mgrid[:height, :width].astype(float)
    i, j = i - (height - 1) / 2, j - (width - 1) / 2
    for k, t in enumerate(angles):
        row = i * math.cos(t) + j * math.sin(t) + (height - 1) / 2
        column = j * math.cos(t) - i * math.sin(t) + (width - 1) / 2
        for c in range(channels):
            expected = float64_bilinear(x[k, c].numpy(), row, column, 0.25)
            assert np.abs(out[k, c].numpy() - expected).max() < POSITION_ERROR


@pytest.mark.parametrize("angle", [-37.0, 12.5, 171.0])
def test_rotation_is_scipys_and_kornias(angle: float) -> None:
    import kornia.geometry.transform as kornia_transform

    x = images(1, 3, 24, 24)
    out = rotate(x, torch.tensor([angle]), fill=0.0)
    # SciPy blends with what lies outside over a whole pixel as well with this mode; it turns
    # rows towards columns, which is clockwise where rows count downwards.
    turned = ndimage.rotate(
        x[0].double().numpy(), angle, axes=(2, 1), reshape=False, order=1, mode="grid-constant"
    )
    assert np.abs(out[0].numpy() - turned).max() < POSITION_ERROR
    theirs = kornia_transform.rotate(x, torch.tensor([angle]))
    assert (out - theirs).abs().max() < 3 * POSITION_ERROR


@pytest.mark.parametrize("shape", SHAPES)
def test_scaling_is_the_formula_and_scipys(shape: tuple[int, ...]) -> None:
    n, channels, height, width = shape
    x = images(*shape)
    out = Scaling(factor=(0.5, 2.0), fill=0.0).change(x, draws(n))
    for k, s in enumerate(draws(n).uniform("factor", 0.5, 2.0).double().tolist()):
        row = (np.arange(height)[:, None] - (height - 1) / 2) / s + (height - 1) / 2
        column = (np.arange(width)[None, :] - (width - 1) / 2) / s + (width - 1) / 2
        row, column = np.broadcast_arrays(row, column)
        for c in range(channels):
            image = x[k, c].double().numpy()
            expected = float64_bilinear(image, row, column, 0.0)
            assert np.abs(out[k, c].numpy() - expected).max() < POSITION_ERROR
            theirs = ndimage.map_coordinates(
                image, [row, column], order=1, mode="grid-constant"
            )
            assert np.abs(expected - theirs).max() < 1e-12


def test_factor_one_changes_nothing() -> None:
    x = images(3, 3, 15, 32)
    assert torch.equal(Scaling(factor=(1, 1), fill=1.0).change(x, draws(3)), x)


def test_enlarging_shows_the_middle() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 3:6, 3:6] = 1
    assert (Scaling(factor=(3, 3)).change(x, draws(1))[:, :, 1:8, 1:8] == 1).all()
    assert Scaling(factor=(1 / 3, 1 / 3)).change(x, draws(1)).sum() < 2


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Rotation, {"degrees": 0}),
        (Rotation, {"degrees": 181}),
        (Rotation, {"fill": 2}),
        (RandomCrop, {"padding": 0}),
        (HorizontalFlip, {"probability": 1.5}),
        (Scaling, {"factor": (0, 1)}),
    ],
)
def test_values_out_of_bounds_are_refused(kind: type, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        kind(**values)


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"lower bound 1\.2 is above the upper one 0\.8"):
        Scaling(factor=(1.2, 0.8))
