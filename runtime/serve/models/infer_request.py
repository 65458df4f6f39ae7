"""A request for inference, over either protocol, and its outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dlzoo.runtime.protocol.datatypes import Array
from dlzoo.runtime.protocol.refusal import RefusalError
from dlzoo.runtime.serve.models.batching import Arrays
from dlzoo.runtime.serve.models.served_model import ServedModel
from dlzoo.runtime.serve.models.signature import Inputs


class OutputRequest(NamedTuple):
    """An output that a client asks for; as its ``num_classes`` best classes, if that is not 0."""

    name: str
    is_binary: bool = False
    num_classes: int = 0


class OutputTensor(NamedTuple):
    """An output as it is sent to the client."""

    name: str
    datatype: str
    array: Array
    is_binary: bool


@dataclass(slots=True)
class InferRequest:
    """A client's request to a model; empty ``outputs`` stands for all of them."""

    inputs: Inputs
    id: str = ""
    outputs: list[OutputRequest] = field(default_factory=list)
    timeout_s: float | None = None
    wants_binary: bool = False


def check_outputs(request: InferRequest, model: ServedModel) -> None:
    """Make sure that a model has the requested outputs.

    Raises:
        RefusalError: an output is unknown, or requested twice.
    """
    names = [output.name for output in request.outputs]
    for name in names:
        if name not in model.signature.outputs:
            raise RefusalError(
                f"model {model.name!r} has no output {name[:100]!r}, expected one of "
                f"{', '.join(model.signature.outputs)}"
            )
    if len(set(names)) != len(names):
        raise RefusalError("an output is requested twice")


def chosen_outputs(
    request: InferRequest, model: ServedModel, answer: Arrays
) -> list[OutputTensor]:
    """Select the requested outputs, in that order, as classes where the request says so.

    Raises:
        RefusalError: classes are requested of an output that is not numeric.
    """
    wanted = request.outputs or [
        OutputRequest(name, request.wants_binary) for name in model.signature.outputs
    ]
    chosen = []
    for output in wanted:
        array = answer[output.name]
        datatype = model.signature.outputs[output.name].datatype
        if output.num_classes:
            array = best_class_texts(
                output.name,
                array,
                output.num_classes,
                model.labels,
                is_batched=model.signature.batch_symbol is not None,
            )
            datatype = "BYTES"
        chosen.append(OutputTensor(output.name, datatype, array, output.is_binary))
    return chosen


def best_class_texts(
    name: str,
    array: Array,
    num_classes: int,
    labels: tuple[str, ...] | None,
    *,
    is_batched: bool,
) -> Array:
    """Write the highest values of an output as texts ``value:index[:label]``, the highest first.

    **Source**: Triton's classification extension.

    **Shape**: [batch, n], or [n] without a batch axis.

    Raises:
        RefusalError: the output is not numeric or has no values.
    """
    scores = array.reshape(len(array), -1) if is_batched else array.reshape(1, -1)
    if array.dtype.kind not in "iuf" or not scores.size:
        raise RefusalError(f"output {name!r} has no numbers to rank as classes")
    num_classes = min(num_classes, scores.shape[1])
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :num_classes]
    named = labels if labels is not None and len(labels) == scores.shape[1] else None
    texts = np.empty(best.shape, np.object_)
    for row, indices in enumerate(best):
        for rank, index in enumerate(indices):
            label = f":{named[index]}" if named else ""
            texts[row, rank] = f"{scores[row, index]}:{index}{label}".encode()
    return texts if is_batched else texts[0]
