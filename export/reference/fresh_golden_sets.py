"""New inputs for a bundle that exists, and a network's answers to them."""

from __future__ import annotations

from torch import nn

from dlzoo.export.reference.complete_golden_sets import Array, complete_golden_sets
from dlzoo.export.reference.golden_inputs import golden_inputs
from dlzoo.export.reference.reference import compute_golden_set
from dlzoo.runtime.bundle.golden_set import GoldenSet
from dlzoo.runtime.bundle.manifest import Manifest

#: Keeps fresh inputs apart from the golden ones of the same seed.
_FRESH_SEED_OFFSET = 1_000_003


def fresh_golden_sets(manifest: Manifest, module: nn.Module, *, seed: int) -> list[GoldenSet]:
    """A network's answers to new inputs of the shapes that a bundle declares.

    Args:
        manifest: of the bundle that will be compared with the network.
        module: in eval mode, with the head and preprocessing that the manifest names.
        seed: draws the inputs.
    """
    sizes = {symbol: axis.proved for symbol, axis in manifest.dynamic_axes.items()}
    names = [spec.name for spec in manifest.outputs]
    drawn = golden_inputs(
        manifest.inputs,
        sizes=sizes,
        seed=seed + _FRESH_SEED_OFFSET,
        integer_ranges=manifest.integer_ranges,
    )

    def compute(number: int, kind: str, inputs: dict[str, Array]) -> GoldenSet:
        return compute_golden_set(f"fresh_{number}", kind, module, inputs, output_names=names)

    return complete_golden_sets(
        drawn, compute, dtypes={spec.name: spec.dtype for spec in manifest.outputs}, seed=seed
    )
