"""The network behind a bundle, as the bundle has it: with its head and its preprocessing."""

from __future__ import annotations

from typing import Any

from torch import nn

from dlzoo.export.plan.pipeline import wrap_network
from dlzoo.runtime.bundle.manifest import Manifest
from dlzoo.zoo.module_wrappers import unwrap
from dlzoo.zoo.registry import Preprocessing
from dlzoo.zoo.sources.input_spec import InputSpec
from dlzoo.zoo.sources.load import load_source
from dlzoo.zoo.sources.source import SourceOptions


def load_bundled_network(
    manifest: Manifest, model: str | nn.Module, *, weights: str, seed: int
) -> nn.Module:
    """Load what a MODEL names, or take a module, with the head and preprocessing of a bundle around it.

    Args:
        manifest: of the bundle; its inputs and number of classes are used where the model says
            none of its own.
        model: without head and preprocessing.
        weights: of a model that is named.
        seed: draws random weights.

    Raises:
        ArgumentError: the network cannot be loaded.
    """
    if isinstance(model, nn.Module):
        return wrap_as_bundled(manifest, model)
    sizes = {symbol: axis.proved[-1] for symbol, axis in manifest.dynamic_axes.items()}
    is_of_zoo = not any(mark in model for mark in ":./")
    options = SourceOptions(
        weights=weights,
        seed=seed,
        default_inputs=tuple(
            InputSpec(
                name=spec.name,
                shape=tuple(sizes[d] if isinstance(d, str) else d for d in spec.dims),
                dtype=spec.dtype,
            )
            for spec in manifest.inputs
        ),
        num_classes=manifest.card.get("num_classes") if is_of_zoo else None,
    )
    return wrap_as_bundled(manifest, load_source(model, options).network)


def wrap_as_bundled(manifest: Manifest, network: nn.Module) -> nn.Module:
    """Put the head and preprocessing that a manifest names around a network."""
    included = None
    if manifest.preprocessing_included and manifest.preprocessing is not None:
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in manifest.preprocessing.items()
        }
        included = Preprocessing(**fields)
    return wrap_network(unwrap(network)[0], head=manifest.head, preprocessing=included)
