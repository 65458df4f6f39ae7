"""Triton's ensembles: every step exists, and what flows between them has one type and shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dlzoo.runtime.deploy.fault import Fault


def ensemble_faults(config: Any, configs: Mapping[str, Any], file: str) -> Iterator[Fault]:
    """Where an ensemble's steps do not fit each other, or the models that they name.

    Args:
        config: the ensemble's.
        configs: those of every model of the repository, by name.
        file: the ensemble's, for the faults.
    """
    if config.platform not in ("", "ensemble"):
        yield Fault(file, "platform", f"is {config.platform!r}, expected 'ensemble'")
    if not config.ensemble_scheduling.step:
        yield Fault(file, "ensemble_scheduling.step", "is missing")
    #: name inside the ensemble -> (what gives it, its data type, its dims)
    given = {tensor.name: ("input", tensor) for tensor in config.input}
    for i, step in enumerate(config.ensemble_scheduling.step):
        place = f"ensemble_scheduling.step[{i}]"
        model = configs.get(step.model_name)
        if model is None:
            yield Fault(file, f"{place}.model_name", f"is {step.model_name!r}: no such model")
            continue
        if bool(model.max_batch_size) != bool(config.max_batch_size) or (
            model.max_batch_size < config.max_batch_size
        ):
            yield Fault(
                file,
                "max_batch_size",
                f"is {config.max_batch_size}, that of {step.model_name} is {model.max_batch_size}",
            )
        yield from _input_faults(step, model, given, file, place)
        outputs = {tensor.name: tensor for tensor in model.output}
        for name, inner in sorted(step.output_map.items()):
            if name not in outputs:
                yield Fault(
                    file,
                    f"{place}.output_map",
                    f"names {name!r}: no output of {step.model_name}",
                )
            else:
                given[inner] = (step.model_name, outputs[name])
    for i, output in enumerate(config.output):
        if output.name not in given:
            yield Fault(file, f"output[{i}].name", f"is {output.name!r}, which no step gives")
        elif fault := _mismatch(output, given[output.name][1]):
            yield Fault(file, f"output[{i}]", f"{fault} of {given[output.name][0]}")


def _input_faults(
    step: Any, model: Any, given: Mapping[str, tuple[str, Any]], file: str, place: str
) -> Iterator[Fault]:
    inputs = {tensor.name: tensor for tensor in model.input}
    for name in sorted(set(inputs) - set(step.input_map)):
        yield Fault(
            file, f"{place}.input_map", f"lacks {name!r}, an input of {step.model_name}"
        )
    for name, inner in sorted(step.input_map.items()):
        if name not in inputs:
            yield Fault(
                file, f"{place}.input_map", f"names {name!r}: no input of {step.model_name}"
            )
        elif inner not in given:
            yield Fault(
                file, f"{place}.input_map", f"takes {inner!r}, which no step before gives"
            )
        elif fault := _mismatch(inputs[name], given[inner][1]):
            yield Fault(file, f"{place}.input_map", f"{name!r} {fault} of {given[inner][0]}")


def _mismatch(wanted: Any, got: Any) -> str:
    """Why one tensor cannot be the other; empty where it can."""
    if wanted.data_type != got.data_type:
        return "has another data_type than that"
    fits = len(wanted.dims) == len(got.dims) and all(
        -1 in (a, b) or a == b for a, b in zip(wanted.dims, got.dims, strict=True)
    )
    return "" if fits else f"has dims {list(wanted.dims)}, not the {list(got.dims)}"
