"""Requests and answers of inference over HTTP: JSON, and the binary tensor data that may follow it.

Source: Open Inference Protocol, "Inference"; Triton's binary tensor data extension.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

from dlzoo.runtime.protocol.datatypes import (
    array_from_bytes,
    bytes_from_array,
    checked_shape,
    require_datatype,
)
from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.http.json_tensors import array_from_json, json_from_array
from dlzoo.runtime.serve.limits import ServerLimits, too_large
from dlzoo.runtime.serve.models.infer_request import InferRequest, OutputRequest, OutputTensor
from dlzoo.runtime.serve.models.signature import Inputs

_SHARED_MEMORY = "shared_memory_region"


def parse_request(
    body: bytes, header_length: bytes | None, limits: ServerLimits
) -> InferRequest:
    """Read a request's body.

    Args:
        body: JSON, and after it the binary data.
        header_length: the value of ``Inference-Header-Content-Length``: how many bytes are JSON.
        limits: the server's limits.

    Raises:
        RefusalError: a part is missing, incomplete, of a wrong type, or left over.
    """
    json_size = len(body)
    if header_length is not None:
        if not header_length.isdigit() or len(header_length) > 18:
            raise RefusalError("Inference-Header-Content-Length is not a whole number")
        json_size = int(header_length)
        if json_size > len(body):
            raise RefusalError(
                f"Inference-Header-Content-Length is {json_size}, but the body has {len(body)} bytes"
            )
    if json_size > limits.json_bytes:
        raise too_large(
            "the request's JSON (send tensors as binary data)", json_size, limits.json_bytes
        )
    document = parse_json(body[:json_size] if json_size < len(body) else body)
    if not isinstance(document, dict):
        raise RefusalError("the request is not a JSON object")
    parameters = _object(document, "parameters", "the request")
    return InferRequest(
        inputs=_parse_inputs(document, memoryview(body)[json_size:]),
        id=_text(document, "id", "the request", default=""),
        outputs=_parse_outputs(document, parameters),
        timeout_s=timeout_of(parameters.get("timeout")),
        wants_binary=_flag(parameters, "binary_data_output"),
    )


def parse_json(text: bytes) -> Any:
    """Read a JSON document; NaN and infinities, which JSON does not have, are refused.

    A whole number that does not fit into 64 bits becomes a float.

    Raises:
        RefusalError: the text is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass  # Python's own parser, below, names the error and accepts lone surrogates
    try:
        return _DECODER.decode(text.decode())
    except RecursionError:
        raise RefusalError("the request's JSON is nested too deeply") from None
    except UnicodeDecodeError:
        raise RefusalError("the request's JSON is not UTF-8") from None
    except ValueError as error:
        # A syntax error, or a whole number of more than 4300 digits.
        reason = str(error).split(":")[0].split(";")[0]
        raise RefusalError(f"the request is not JSON: {reason}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise RefusalError(
        f"the request holds {name}, which JSON does not have. Send it as binary data"
    )


#: Made once: ``json.loads`` would make a new decoder for each call with options.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def timeout_of(microseconds: object) -> float | None:
    """Convert the ``timeout`` parameter, how long the client waits, to seconds; None without one.

    Source: Triton's schedule policy extension.

    Raises:
        RefusalError: it is not a whole number.
    """
    if microseconds is None:
        return None
    if type(microseconds) is not int or not 0 <= microseconds < 2**63:
        raise RefusalError("parameter 'timeout' should be a whole number of microseconds")
    return microseconds * 1e-6 if microseconds else None


def _parse_inputs(document: dict[str, Any], binary: memoryview) -> Inputs:
    entries = document.get("inputs")
    if not isinstance(entries, list) or not entries:
        raise RefusalError("the request has no list 'inputs'")
    inputs = {}
    place = 0
    for entry in entries:
        if not isinstance(entry, dict):
            raise RefusalError("an entry of 'inputs' is not an object")
        name = _text(entry, "name", "an input")
        if name in inputs:
            raise RefusalError(f"input {name[:100]!r} is given twice")
        datatype = require_datatype(name, entry.get("datatype"))
        shape = checked_shape(name, entry.get("shape"))
        parameters = _object(entry, "parameters", f"input {name!r}")
        if _SHARED_MEMORY in parameters:
            raise RefusalError("shared memory is not supported", Reason.UNSUPPORTED)
        size = parameters.get("binary_data_size")
        if size is None:
            array = array_from_json(name, datatype, shape, entry.get("data"))
        else:
            if "data" in entry:
                raise RefusalError(f"input {name!r} has both 'data' and 'binary_data_size'")
            if type(size) is not int or size < 0:
                raise RefusalError(
                    f"input {name!r}: 'binary_data_size' is not a whole number from 0 up"
                )
            if place + size > len(binary):
                raise RefusalError(
                    f"input {name!r} should have {size} bytes of binary data, but only "
                    f"{len(binary) - place} are left in the body"
                )
            array = array_from_bytes(name, datatype, shape, binary[place : place + size])
            place += size
        inputs[name] = (datatype, array)
    if place != len(binary):
        raise RefusalError(f"{len(binary) - place} bytes follow the last input's binary data")
    return inputs


def _parse_outputs(
    document: dict[str, Any], parameters: dict[str, Any]
) -> list[OutputRequest]:
    entries = document.get("outputs")
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise RefusalError("'outputs' is not a list")
    outputs = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise RefusalError("an entry of 'outputs' is not an object")
        name = _text(entry, "name", "an output")
        own = _object(entry, "parameters", f"output {name!r}")
        if _SHARED_MEMORY in own:
            raise RefusalError("shared memory is not supported", Reason.UNSUPPORTED)
        is_binary = _flag(own, "binary_data")
        if own.get("binary_data") is None:
            is_binary = _flag(parameters, "binary_data_output")
        outputs.append(
            OutputRequest(name, is_binary, num_classes_of(own.get("classification")))
        )
    return outputs


def num_classes_of(value: object) -> int:
    """Read the ``classification`` parameter of an output: how many classes, 0 for none.

    Raises:
        RefusalError: it is not a whole number from 0 up.
    """
    if value is None:
        return 0
    if type(value) is not int or value < 0:
        raise RefusalError("parameter 'classification' should be a whole number from 0 up")
    return value


def _object(document: dict[str, Any], key: str, owner: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusalError(f"{owner}: {key!r} is not an object")
    return value


def _flag(parameters: dict[str, Any], key: str) -> bool:
    value = parameters.get(key)
    if value is not None and not isinstance(value, bool):
        raise RefusalError(f"parameter {key!r} should be true or false")
    return value is True


def _text(
    document: dict[str, Any], key: str, owner: str, *, default: str | None = None
) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise RefusalError(f"{owner} has no text {key!r}")
    return value


def response_body(
    name: str, version: str, request_id: str, outputs: list[OutputTensor]
) -> tuple[bytes, int | None]:
    """Build an answer's body; also return the size of its JSON if binary data follow, else None.

    Raises:
        RefusalError: an output holds values that JSON cannot hold.
    """
    entries: list[dict[str, Any]] = []
    parts = [b""]
    for output in outputs:
        entry: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": list(output.array.shape),
        }
        if output.is_binary:
            raw = bytes_from_array(output.datatype, output.array)
            entry["parameters"] = {"binary_data_size": len(raw)}
            parts.append(raw)
        else:
            entry["data"] = json_from_array(output.datatype, output.array)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": name, "model_version": version}
    if request_id:
        document["id"] = request_id
    document["outputs"] = entries
    parts[0] = orjson.dumps(document)
    if len(parts) == 1:
        return parts[0], None
    return b"".join(parts), len(parts[0])
