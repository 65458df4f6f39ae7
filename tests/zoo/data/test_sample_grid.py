"""The grid shows every pixel of small images, and the right names."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlzoo.errors import ArgumentError, StorageError
from dlzoo.zoo.data.sample_grid import label_lines, sample_grid, write_sample_grid

NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]


def images(*shape: int) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    return torch.from_numpy((pixels / 255).astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_is_there(channels: int) -> None:
    x = images(5, channels, 28, 28)
    grid = np.asarray(sample_grid(x, torch.arange(5), NAMES, num_columns=3))
    side, margin, line = 28 * 4, 8, 15
    assert grid.shape == (2 * (side + line + margin) + margin, 3 * (side + margin) + margin, 3)
    for k in range(5):
        left = margin + k % 3 * (side + margin)
        top = margin + k // 3 * (side + line + margin)
        tile = grid[top : top + side, left : left + side]
        expected = (x[k] * 255).round().permute(1, 2, 0).numpy().repeat(4, 0).repeat(4, 1)
        assert (tile == expected).all()
        text = grid[top + side : top + side + line, left : left + side]
        assert text.min() < 100  # there is ink
        assert (text[:, -4:] == 255).all()  # and it ends before the tile does


def test_large_images_are_reduced() -> None:
    assert sample_grid(images(1, 3, 224, 448), torch.tensor([0]), NAMES).size == (208, 127)


def test_a_row_is_as_high_as_its_labels_need() -> None:
    targets = torch.eye(5)[:4]
    plain = sample_grid(images(4, 1, 28, 28), targets, NAMES, num_columns=2)
    targets[0] = torch.tensor([0.5, 0.2, 0.3, 0.0, 0.0])
    mixed = sample_grid(images(4, 1, 28, 28), targets, NAMES, num_columns=2)
    assert mixed.height == plain.height + 2 * 15
    # The second row is the same, further down.
    lower = 8 + 112 + 15 + 8
    assert (np.asarray(plain)[lower:] == np.asarray(mixed)[lower + 30 :]).all()


def test_labels() -> None:
    assert label_lines(torch.tensor(3), NAMES) == ["Dress"]
    mosaic = torch.tensor([0.1, 0.2, 0.15, 0.55, 0.0])
    assert label_lines(mosaic, NAMES) == [
        "0.55 Dress",
        "0.20 Trouser",
        "0.15 Pullover",
        "0.10 T-shirt/top",
    ]
    assert label_lines(torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]), NAMES) == ["Trouser", "Dress"]
    assert label_lines(torch.zeros(5), NAMES) == ["no label"]
    assert len(label_lines(torch.full((5,), 0.2), NAMES)) == 4


def test_long_names_are_shortened() -> None:
    x = images(2, 1, 28, 28)
    short = sample_grid(x, torch.tensor([0, 1]), ["a", "b"])
    long = sample_grid(x, torch.tensor([0, 1]), ["W" * 60, "b"])
    assert long.size == short.size
    first, second = np.asarray(long), np.asarray(short)
    # The long name stays under its own image: the second tile and its name are untouched.
    assert (first[:, 8 + 112 :] == second[:, 8 + 112 :]).all()
    assert (first[:, : 8 + 112] != second[:, : 8 + 112]).any()


def test_writes_the_same_png_each_time(tmp_path: Path) -> None:
    x = images(4, 3, 10, 12)
    for name in ("a.png", "b.png"):
        write_sample_grid(tmp_path / name, x, torch.arange(4), NAMES)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as file:
        assert (np.asarray(file) == np.asarray(sample_grid(x, torch.arange(4), NAMES))).all()


@pytest.mark.parametrize(("value", "text"), [(2.5, "0 to 2.5"), (-1.0, "-1 to 0")])
def test_normalized_images_are_refused(value: float, text: str) -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = value
    message = f"`images_NCHW` got values from {text}, expected 0 to 1. Give images before"
    with pytest.raises(ArgumentError, match=re.escape(message)):
        sample_grid(x, torch.tensor([0]), NAMES)


def test_nan_is_refused() -> None:
    with pytest.raises(ArgumentError, match="from nan to nan"):
        sample_grid(torch.full((1, 1, 4, 4), torch.nan), torch.tensor([0]), NAMES)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "grid.png"
    with pytest.raises(StorageError, match=r"grid\.png cannot be written: No such file or"):
        write_sample_grid(path, images(1, 1, 4, 4), torch.tensor([0]), NAMES)
