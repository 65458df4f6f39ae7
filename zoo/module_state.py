"""What a network's code writes onto its modules while it runs: put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
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


@contextmanager
def in_eval_mode(module: nn.Module, notes: list[str]) -> Iterator[None]:
    """Put every submodule into eval mode, and back into the one it was in; say so if it mattered.

    torch's random stream and the fused attention kernel, which has no ONNX form, are restored too.
    """
    modes = [(child, child.training) for child in module.modules()]
    num_training = sum(training for _, training in modes)
    has_fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        module.eval()
        for child, _ in modes:
            child.training = False  # where a class overrides train() to keep some of it on
        torch.backends.mha.set_fastpath_enabled(False)
        if num_training:
            notes.append(
                f"{num_training} of {len(modes)} modules were in training mode: the network was "
                "exported in eval mode (no dropout, fixed statistics) and set back."
            )
        with torch.random.fork_rng(devices=[]), attributes_restored(module):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(has_fast_path)
        for child, training in modes:
            child.training = training
