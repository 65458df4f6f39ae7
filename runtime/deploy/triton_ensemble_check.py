"""Checks of Triton's ensembles: every step exists, and tensors between steps agree in type and shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dlzoo.runtime.deploy.problem import Problem


def ensemble_problems(config: Any, configs: Mapping[str, Any], file: str) -> Iterator[Problem]:
    """Find where an ensemble's steps do not fit each other, or the models that they name.

    Args:
        config: the ensemble's configuration.
        configs: the configurations of every model of the repository, by name.
        file: the ensemble's file, which the problems name.
    """
    if config.platform not in ("", "ensemble"):
        yield Problem(file, "platform", f"is {config.platform!r}, expected 'ensemble'")
    if not config.ensemble_scheduling.step:
        yield Problem(file, "ensemble_scheduling.step", "is missing")
    #: name inside the ensemble -> (the step that produces it, the tensor)
    given = {tensor.name: ("input", tensor) for tensor in config.input}
    for i, step in enumerate(config.ensemble_scheduling.step):
        place = f"ensemble_scheduling.step[{i}]"
        model = configs.get(step.model_name)
        if model is None:
            yield Problem(
                file, f"{place}.model_name", f"is {step.model_name!r}: no such model"
            )
            continue
        if bool(model.max_batch_size) != bool(config.max_batch_size) or (
            model.max_batch_size < config.max_batch_size
        ):
            yield Problem(
                file,
                "max_batch_size",
                f"is {config.max_batch_size}, that of {step.model_name} is {model.max_batch_size}",
            )
        yield from _input_problems(step, model, given, file, place)
        outputs = {tensor.name: tensor for tensor in model.output}
        for name, inner in sorted(step.output_map.items()):
            if name not in outputs:
                yield Problem(
                    file,
                    f"{place}.output_map",
                    f"names {name!r}, which is not an output of {step.model_name}",
                )
            else:
                given[inner] = (step.model_name, outputs[name])
    for i, output in enumerate(config.output):
        if output.name not in given:
            yield Problem(
                file, f"output[{i}].name", f"is {output.name!r}, which no step produces"
            )
        elif problem := _mismatch(output, given[output.name][1]):
            yield Problem(file, f"output[{i}]", f"{problem} of {given[output.name][0]}")


def _input_problems(
    step: Any, model: Any, given: Mapping[str, tuple[str, Any]], file: str, place: str
) -> Iterator[Problem]:
    inputs = {tensor.name: tensor for tensor in model.input}
    for name in sorted(set(inputs) - set(step.input_map)):
        yield Problem(
            file, f"{place}.input_map", f"lacks {name!r}, an input of {step.model_name}"
        )
    for name, inner in sorted(step.input_map.items()):
        if name not in inputs:
            yield Problem(
                file,
                f"{place}.input_map",
                f"names {name!r}, which is not an input of {step.model_name}",
            )
        elif inner not in given:
            yield Problem(
                file, f"{place}.input_map", f"takes {inner!r}, which no earlier step produces"
            )
        elif problem := _mismatch(inputs[name], given[inner][1]):
            yield Problem(
                file, f"{place}.input_map", f"{name!r} {problem} of {given[inner][0]}"
            )


def _mismatch(wanted: Any, got: Any) -> str:
    """Say why one tensor cannot feed the other; empty if it can."""
    if wanted.data_type != got.data_type:
        return "has a data_type different from that"
    fits = len(wanted.dims) == len(got.dims) and all(
        -1 in (a, b) or a == b for a, b in zip(wanted.dims, got.dims, strict=True)
    )
    return "" if fits else f"has dims {list(wanted.dims)}, not the {list(got.dims)}"
