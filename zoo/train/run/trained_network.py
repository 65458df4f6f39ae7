"""The result of a run: its best weights, and the normalization of images before them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import Tensor, nn

from dlzoo.zoo.data.normalization import FittedNormalization
from dlzoo.zoo.registry import Preprocessing
from dlzoo.zoo.train.run.checkpoint import read_tensors, write_tensors

NORMALIZATION = "normalization.safetensors"


def save_normalization(folder: Path, normalization: FittedNormalization) -> None:
    """Write the statistics of the training images to a run's folder."""
    write_tensors(folder / NORMALIZATION, normalization.state(), {})


def load_normalization(folder: Path) -> FittedNormalization:
    """Read the statistics of the training images from a run's folder.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    tensors, _ = read_tensors(folder / NORMALIZATION)
    return FittedNormalization.from_state(tensors)


def with_normalization(network: nn.Module, normalization: FittedNormalization) -> nn.Module:
    """The network as it is exported, after layers for whitening and the like if there are any."""
    if normalization.layer is None:
        return network
    return nn.Sequential(
        OrderedDict([("normalization", normalization.layer), ("network", network)])
    )


def served_preprocessing(
    geometry: Preprocessing, normalization: FittedNormalization
) -> Preprocessing:
    """Preprocessing for a server, from the run's geometry and statistics."""
    return Preprocessing(
        color=geometry.color,
        resize_size=geometry.resize_size,
        crop_size=geometry.crop_size,
        interpolation=geometry.interpolation,
        mean=normalization.mean,
        std=normalization.std,
    )


def best_weights(path: Path) -> dict[str, Tensor]:
    """The best weights of a run.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    tensors, _ = read_tensors(path)
    return tensors
