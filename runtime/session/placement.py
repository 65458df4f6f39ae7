"""Check that ONNX Runtime put a session's nodes on the provider that was asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlzoo.errors import ProviderError
from dlzoo.runtime.session.installation import load_onnxruntime, preload_cuda_libraries
from dlzoo.runtime.session.providers import ExecutionProvider, short_name

#: Operators that ONNX Runtime itself puts on the CPU beside a device: they compute the shapes
#: of tensors, a few integers each, which the device's kernels need on the CPU anyway.
#: Source: onnxruntime/core/framework/fallback_cpu_capability.cc, GetCpuPreferredNodes.
SHAPE_OPS = frozenset(
    [
        *("Shape", "Size", "Range", "ConstantOfShape"),
        *("Concat", "Expand", "Gather", "Reshape", "Slice", "Squeeze", "Unsqueeze"),
        *("Add", "Cast", "Div", "Equal", "Mul", "ReduceProd", "Sub", "Where"),
        # Sizes and places of a resize that is computed in the graph.
        *("And", "GreaterOrEqual", "Less", "Max", "Min", "Mod", "Reciprocal"),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The providers of a session and the nodes that each of them took.

    ``actual`` are the session's providers, ``node_providers`` the number of nodes of each, ``cpu_ops``
    the operators on the CPU, and ``ops`` domain and type of every node.
    """

    actual: tuple[str, ...]
    node_providers: dict[str, int]
    cpu_ops: dict[str, int]
    ops: tuple[tuple[str, str], ...]


def placement_of(inference_session: Any) -> Placement:
    """Read the placement from a session that recorded it."""
    nodes = [
        (short_name(group.ep_name), node.domain, node.op_type)
        for group in inference_session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]
    cpu_ops = Counter(op for provider, _, op in nodes if provider == "cpu")
    return Placement(
        actual=tuple(short_name(name) for name in inference_session.get_providers()),
        node_providers=dict(sorted(Counter(provider for provider, _, _ in nodes).items())),
        cpu_ops=dict(sorted(cpu_ops.items())),
        ops=tuple((domain, op) for _, domain, op in nodes),
    )


def check_placement(placement: Placement, path: Path, wanted: ExecutionProvider) -> None:
    """Make sure that a session's nodes are where they were asked to be.

    Raises:
        ProviderError: the provider did not load, or nodes that are not of shapes lie on the CPU.
    """
    if wanted.name not in placement.actual:
        missing = preload_cuda_libraries(load_onnxruntime()) if wanted.name == "cuda" else []
        reason = f" ({missing[0].split(':')[0]})" if missing else ""
        raise ProviderError(
            f"Provider {wanted.name!r} was asked for, but its libraries did not load{reason} and "
            f'{path.name} would run on {", ".join(placement.actual)}. Run "dlzoo doctor" to see what '
            "is missing, or give `allow_fallback=True`."
        )
    strangers = {op: count for op, count in placement.cpu_ops.items() if op not in SHAPE_OPS}
    if not placement.node_providers.get(wanted.name):
        strangers = dict(placement.cpu_ops)
    if strangers:
        listed = ", ".join(f"{op} ({count})" for op, count in sorted(strangers.items()))
        num_nodes = sum(placement.node_providers.values())
        raise ProviderError(
            f"Provider {wanted.name!r} was asked for, but {sum(strangers.values())} of "
            f"{num_nodes} nodes of {path.name} would run on cpu: {listed}. "
            "Export with another opset, or give `allow_fallback=True`."
        )
