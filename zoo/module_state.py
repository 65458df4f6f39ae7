"""What a network's code writes onto its modules while it runs: put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_CONTAINERS = (dict, list, set)


@contextmanager
def attributes_restored(module: nn.Module) -> Iterator[None]:
    """On exit every module has the attributes it had, and its dictionaries and lists their entries.

    Values of tensors are not watched. timm's attention keeps its biases in a dictionary when it
    first runs: after a run in float64 the network would go on with those, and fail in float32.
    """
    before: list[tuple[nn.Module, dict[str, Any], dict[str, Any]]] = [
        (
            part,
            dict(part.__dict__),
            {
                name: value.copy()
                for name, value in part.__dict__.items()
                if type(value) in _CONTAINERS
            },
        )
        for part in module.modules()
    ]
    try:
        yield
    finally:
        for part, attributes, contents in before:
            for name, content in contents.items():
                container = attributes[name]
                if isinstance(container, list):
                    container[:] = content
                else:
                    container.clear()
                    container.update(content)
            part.__dict__.clear()
            part.__dict__.update(attributes)
