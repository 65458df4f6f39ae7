"""Tensors in the protocol's gRPC messages: raw bytes, or typed contents."""

from __future__ import annotations

from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from dlzoo.runtime.protocol.datatypes import (
    NUMPY_DTYPES,
    Array,
    array_from_bytes,
    bytes_from_array,
    checked_shape,
    require_datatype,
)
from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.http.http_infer import timeout_of
from dlzoo.runtime.serve.http.json_tensors import array_from_json
from dlzoo.runtime.serve.models.infer_request import InferRequest, OutputRequest, OutputTensor

#: The field of InferTensorContents for each datatype; FP16 and BF16 have none.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def infer_request(message: Any) -> InferRequest:
    """Read a ``ModelInferRequest``.

    Raises:
        RefusalError: it does not fit the protocol.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise RefusalError(
            f"the request has {len(message.inputs)} inputs and {len(raw)} raw_input_contents"
        )
    inputs = {}
    for index, tensor in enumerate(message.inputs):
        name = tensor.name
        if name in inputs:
            raise RefusalError(f"input {name[:100]!r} is given twice")
        _refuse_shared_memory(tensor.parameters)
        datatype = require_datatype(name, tensor.datatype)
        shape = checked_shape(name, list(tensor.shape))
        if raw:
            if tensor.HasField("contents"):
                raise RefusalError(f"input {name!r} has both contents and raw_input_contents")
            array = array_from_bytes(name, datatype, shape, raw[index])
        else:
            array = _array_from_contents(name, datatype, shape, tensor.contents)
        inputs[name] = (datatype, array)
    outputs = []
    for output in message.outputs:
        _refuse_shared_memory(output.parameters)
        num_classes = _parameter(output.parameters, "classification") or 0
        if type(num_classes) is not int or num_classes < 0:
            raise RefusalError("parameter 'classification' should be a whole number from 0 up")
        outputs.append(OutputRequest(output.name, True, num_classes))
    return InferRequest(
        inputs=inputs,
        id=message.id,
        outputs=outputs,
        timeout_s=timeout_of(_parameter(message.parameters, "timeout")),
        wants_binary=True,
    )


def infer_response(
    name: str, version: str, request_id: str, outputs: list[OutputTensor]
) -> Any:
    """Build the ``ModelInferResponse`` of an answer; all outputs are raw bytes, as from Triton."""
    response = pb.ModelInferResponse(model_name=name, model_version=version, id=request_id)
    for output in outputs:
        response.outputs.add(
            name=output.name, datatype=output.datatype, shape=output.array.shape
        )
        response.raw_output_contents.append(bytes_from_array(output.datatype, output.array))
    return response


def _array_from_contents(
    name: str, datatype: str, shape: tuple[int, ...], contents: Any
) -> Array:
    field = _CONTENTS.get(datatype)
    if field is None:
        raise RefusalError(f"input {name!r} of datatype {datatype} needs raw_input_contents")
    strangers = [other.name for other, _ in contents.ListFields() if other.name != field]
    if strangers:
        raise RefusalError(
            f"input {name!r} of datatype {datatype} has {strangers[0]}, expected {field}"
        )
    values = getattr(contents, field)
    if datatype in ("FP32", "FP64", "BYTES"):
        # Unlike JSON, these may hold NaN, infinities and any bytes.
        array = np.empty(len(values), NUMPY_DTYPES[datatype])
        array[:] = values
        if np.prod(shape, dtype=np.float64) != len(values):
            raise RefusalError(
                f"input {name!r} has {len(values)} elements, which does not fit its shape "
                f"{list(shape)}"
            )
        return array.reshape(shape)
    return array_from_json(name, datatype, shape, list(values))


def _parameter(parameters: Any, name: str) -> Any:
    if name not in parameters:
        return None
    choice = parameters[name].WhichOneof("parameter_choice")
    return getattr(parameters[name], choice) if choice else None


def _refuse_shared_memory(parameters: Any) -> None:
    if "shared_memory_region" in parameters:
        raise RefusalError("shared memory is not supported", Reason.UNSUPPORTED)
