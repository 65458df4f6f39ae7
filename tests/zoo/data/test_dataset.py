"""Reading a data set gives the pixels that serving gives, from memory and from files."""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dlzoo.image_file import Geometry, resize, resize_many
from dlzoo.runtime.images.preprocess import tensor_from_image
from dlzoo.zoo.data import array_dataset
from dlzoo.zoo.data.array_dataset import ArrayDataset
from dlzoo.zoo.data.dataset_source import load_dataset
from dlzoo.zoo.data.preprocessing import IMAGENET_224, MNIST_LENET5
from tests.support.data_files import DIGIT_32, SMALL_RGB, noise, write_folder

SQUEEZED = replace(SMALL_RGB, resize_size=None, crop_size=(19, 30), interpolation="bicubic")
ENLARGED_GREY = replace(DIGIT_32, resize_size=40, crop_size=(36, 44))


def array_of(images: np.ndarray, geometry: Geometry) -> ArrayDataset:
    return ArrayDataset(
        images,
        torch.arange(len(images)) % 2,
        name="noise",
        split="train",
        class_names=("even", "odd"),
        geometry=geometry,
        facts={},
    )


def served(image: np.ndarray, geometry: Geometry) -> torch.Tensor:
    """What a bundle's preprocessing makes of the image in a file, as levels of 0 … 255."""
    file = io.BytesIO()
    Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0]).save(file, "PNG")
    num_channels = geometry.num_channels
    fields = asdict(geometry) | {"mean": [0.0] * num_channels, "std": [1.0] * num_channels}
    return torch.from_numpy(tensor_from_image(file.getvalue(), fields)[0])


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("geometry", [SMALL_RGB, SQUEEZED, DIGIT_32, ENLARGED_GREY])
@pytest.mark.parametrize("keeps", [True, False])
def test_pixels_from_memory(
    num_channels: int, geometry: Geometry, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keeps:  # as with a set that is too large to be kept resized
        monkeypatch.setattr(array_dataset, "_LARGEST_KEPT_BYTES", 0)
    monkeypatch.setattr(array_dataset, "_PIXELS_AT_ONCE", 3000)  # several calls of Pillow
    images = noise(9, 28, 33, num_channels)
    data = array_of(images, geometry)
    indices = [4, 0, 8, 4]
    read = data.read(indices)
    assert read.dtype == torch.uint8
    assert read.is_contiguous()
    expected = torch.stack([served(images[k], geometry) for k in indices])
    assert torch.equal(read.float() / 255, expected)
    assert data.num_channels == geometry.num_channels
    assert data.read([]).shape == (0, *read.shape[1:])


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    new_height=st.integers(1, 50),
    new_width=st.integers(1, 50),
    num_channels=st.sampled_from([1, 3]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    seed=st.integers(0, 9),
)
def test_many_are_resized_as_one_is(
    height: int,
    width: int,
    new_height: int,
    new_width: int,
    num_channels: int,
    interpolation: str,
    seed: int,
) -> None:
    images = noise(3, height, width, num_channels, seed=seed)
    many = resize_many(images, new_height, new_width, interpolation)
    for image, got in zip(images, many, strict=True):
        one = Image.fromarray(image if num_channels == 3 else image[:, :, 0])
        expected = np.asarray(resize(one, new_height, new_width, interpolation))
        np.testing.assert_array_equal(got, expected.reshape(new_height, new_width, -1))


def test_all_grey_levels_of_colours() -> None:
    # Every value of each channel, and a sample of their mixtures, as Pillow weighs them.
    colours = np.concatenate([np.eye(3)[k] * np.arange(256)[:, None] for k in range(3)])
    colours = np.concatenate([colours, noise(1232, 3)]).astype(np.uint8).reshape(1, 40, 50, 3)
    geometry = Geometry(color="L", resize_size=40, crop_size=(40, 50))
    expected = np.asarray(Image.fromarray(colours[0]).convert("L"))
    np.testing.assert_array_equal(
        array_of(colours, geometry).read([0])[0, 0].numpy(), expected
    )


def test_geometry_of_a_cards_preprocessing() -> None:
    assert Geometry.of(MNIST_LENET5) == DIGIT_32
    assert Geometry.of(IMAGENET_224).resized_size(500, 375) == (341, 256)


def top_left(k: int, height: int, width: int) -> tuple[int, int, int, int]:
    return (k, 2, height // 2, width - 2 - k)


def test_windows_are_cut_from_the_originals(tmp_path: Path) -> None:
    folder = load_dataset(
        str(write_folder(tmp_path / "pets")), split="train", geometry=SMALL_RGB
    )
    memory = array_of(noise(4, 24, 26, 3), SMALL_RGB)
    for data in (folder, memory):
        cut = data.read([2, 3], top_left)
        assert cut.shape == (2, 3, 10, 8)
        assert not torch.equal(cut, data.read([2, 3]))
    with Image.open(tmp_path / "pets/train/dog/d.bmp") as image:
        part = image.crop((2, 1, image.width - 1, 1 + image.height // 2))
    # Rows, then columns.
    part = part.resize((8, part.height), Image.Resampling.BILINEAR)
    expected = np.asarray(part.resize((8, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(folder.read([2, 3], top_left)[1].permute(1, 2, 0), expected)


def test_data_sets_can_be_sent_to_processes(tmp_path: Path) -> None:
    folder = load_dataset(
        str(write_folder(tmp_path / "pets")), split="train", geometry=SMALL_RGB
    )
    for data in (folder, array_of(noise(4, 24, 26, 3), SMALL_RGB)):
        copy = pickle.loads(pickle.dumps(data))
        assert torch.equal(copy.read([3, 1]), data.read([3, 1]))
        assert copy.facts == data.facts
