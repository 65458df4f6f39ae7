"""New inputs for a bundle that exists, and a network's answers to them."""

from __future__ import annotations

from typing import Any

from torch import nn

from dlzoo.export.bundle import GoldenSet, Manifest
from dlzoo.export.golden_inputs import golden_inputs
from dlzoo.export.pipeline import wrap_network
from dlzoo.export.reference import compute_golden_set

#: Keeps fresh inputs apart from the golden ones of the same seed.
_FRESH_SEED_OFFSET = 1_000_003


def fresh_golden_sets(manifest: Manifest, network: nn.Module, *, seed: int) -> list[GoldenSet]:
    """A network's answers to new inputs of the shapes that a bundle declares.

    Args:
        manifest: of the bundle that will be compared with the network.
        network: in eval mode, without the head and preprocessing that the manifest names.
        seed: draws the inputs.
    """
    from dlzoo.zoo.registry import Preprocessing

    included = None
    if manifest.preprocessing_included and manifest.preprocessing is not None:
        facts: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in manifest.preprocessing.items()
        }
        included = Preprocessing(**facts)
    module = wrap_network(network, head=manifest.head, preprocessing=included).eval()
    sizes = {symbol: axis.proved for symbol, axis in manifest.dynamic_axes.items()}
    names = [spec.name for spec in manifest.outputs]
    return [
        compute_golden_set(f"fresh_{number}", kind, module, inputs, output_names=names)
        for number, (kind, inputs) in enumerate(
            golden_inputs(manifest.inputs, sizes=sizes, seed=seed + _FRESH_SEED_OFFSET)
        )
    ]
