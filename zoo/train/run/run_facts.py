"""Facts about a run for ``run.json``, beyond the numbers of its recipe."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from dlzoo.version import __version__
from dlzoo.zoo.data.normalization import FittedNormalization
from dlzoo.zoo.train.recipes.recipe import Recipe
from dlzoo.zoo.train.recipes.resolution import geometry_of
from dlzoo.zoo.train.run.run_data import RunData
from dlzoo.zoo.train.run.trained_network import served_preprocessing


def run_facts(
    recipe: Recipe,
    data: RunData,
    normalization: FittedNormalization,
    network: nn.Module,
    fabric: Fabric,
) -> dict[str, Any]:
    """Data, classes, preprocessing, network, processes and versions of a run, for JSON."""
    return {
        "model": recipe.model.name,
        "class_names": list(data.train.class_names),
        "is_multi_label": data.train.is_multi_label,
        "num_parameters": sum(p.numel() for p in network.parameters()),
        "input_shape": [data.train.num_channels, *data.train.geometry.crop_size],
        "preprocessing": asdict(served_preprocessing(geometry_of(recipe), normalization)),
        "data": {name: dataset.facts for name, dataset in data.parts.items()},
        "num_processes": fabric.world_size,
        "num_threads": torch.get_num_threads(),
        "device": fabric.device.type,
        "tools": {
            "dlzoo": __version__,
            **{name: version(name) for name in ("torch", "numpy", "lightning-fabric")},
        },
    }
