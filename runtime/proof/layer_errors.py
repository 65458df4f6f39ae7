"""The error of every inner value of a model: what report.html plots and parity.json holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dlzoo.runtime.onnx_reader.onnx_nodes import GraphNode
from dlzoo.runtime.proof.difference import Difference


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """One inner value against PyTorch's; ``module`` and ``source`` say where it comes from.

    ``rho2`` and ``rhomax`` are None where no finite number could be compared.
    """

    value: str
    node: str
    op_type: str
    module: str
    source: str
    rho2: float | None
    rhomax: float | None
    verdict: str

    @classmethod
    def from_difference(
        cls, difference: Difference, node: GraphNode, *, module: str, source: str
    ) -> LayerError:
        """Keep the numbers of a comparison."""
        return cls(
            value=difference.name,
            node=node.label,
            op_type=node.op_type,
            module=module,
            source=source,
            rho2=_finite(difference.rho2),
            rhomax=_finite(difference.rhomax),
            verdict="pass" if difference else "fail",
        )


@dataclass(frozen=True, kw_only=True)
class LayerErrors:
    """All inner values that have a partner in PyTorch, in graph order.

    ``reason`` says why there are none. The model ran with every value tapped, on the golden set
    ``golden``; taps undo fusions, so the verdict rests on the untapped runs alone.
    """

    provider: str = ""
    optimization: str = ""
    golden: str = ""
    kind: str = ""
    batch: int = 0
    num_values: int = 0
    values: tuple[LayerError, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "values": [asdict(value) for value in self.values]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LayerErrors:
        """Read what :meth:`to_json` gave.

        Raises:
            TypeError: it is something else.
        """
        values: Sequence[Mapping[str, Any]] = document["values"]
        return cls(**{**document, "values": tuple(LayerError(**value) for value in values)})


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
