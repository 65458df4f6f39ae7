"""Requests for inference with one or two changes, and the answers that they should get."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

Array = np.ndarray[Any, Any]

# -- HTTP: JSON and the binary tensors that follow it --------------------------------------------

HUGE = ["1e999", "-1e400", "9" * 5000, "9" * 400, "1" + "0" * 30, "9223372036854775808", "-1"]
ODD_JSON = st.sampled_from(
    [
        *HUGE,
        "NaN",
        "-Infinity",
        "1.0",
        "true",
        "null",
        '"4"',
        "[]",
        "{}",
        "0",
        "1e2",
        '"\\ud800"',
    ]
)
deep = st.sampled_from([40, 900, 20_000]).map(lambda depth: "[" * depth + "]" * depth)
values = st.one_of(ODD_JSON, deep, st.integers(-(2**70), 2**70).map(str))


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str]:
    """A sound request with one or two changes, and a header that may be wrong."""
    count = draw(st.integers(1, 3))
    array = np.arange(count * 64, dtype=np.float32).reshape(count, 1, 8, 8)
    is_binary = draw(st.booleans())
    tensor: dict[str, Any] = {"name": "image", "shape": list(array.shape), "datatype": "FP32"}
    if is_binary:
        tensor["parameters"] = {"binary_data_size": array.nbytes}
    else:
        tensor["data"] = array.reshape(-1).tolist()
    document: dict[str, Any] = {"id": "7", "inputs": [tensor], "parameters": {}}
    document["outputs"] = [{"name": "scores", "parameters": {"binary_data": True}}]
    changes = draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=2))
    for change in changes:
        CHANGES[change](draw, document)
    text = json.dumps(document)
    # Texts that Python's json does not write: odd numbers, deep lists, a repeated key.
    text = text.replace('"ODD"', draw(values))
    if draw(st.integers(0, 9)) == 0:
        text = text.replace('"datatype"', f'"shape": {draw(values)}, "datatype"', 1)
    head = text.encode("utf-8", "surrogatepass")
    body = head + (array.tobytes() if is_binary else b"")
    header = str(len(head))
    match draw(st.integers(0, 7)):
        case 0:
            header = str(draw(st.integers(-2, len(body) + 2)))
        case 1:
            header = draw(st.sampled_from(["", "x", "1.5", "9" * 30, "5 5", "0x10", "+3"]))
        case 2:
            body = body[: draw(st.integers(0, len(body)))]
        case 3:
            body += draw(st.binary(min_size=1, max_size=9))
        case 4:
            place = draw(st.integers(0, len(body) - 1))
            body = body[:place] + draw(st.binary(min_size=1, max_size=4)) + body[place + 1 :]
    return body, header


def _change(key: str, *odd: Any) -> Callable[[st.DrawFn, dict[str, Any]], None]:
    def change(draw: st.DrawFn, document: dict[str, Any]) -> None:
        document["inputs"][0][key] = draw(st.sampled_from(["ODD", *odd]))

    return change


def _change_element(draw: st.DrawFn, document: dict[str, Any]) -> None:
    tensor = document["inputs"][0]
    key = "data" if isinstance(tensor.get("data"), list) and draw(st.booleans()) else "shape"
    if isinstance(tensor.get(key), list) and tensor[key]:
        tensor[key][draw(st.integers(0, len(tensor[key]) - 1))] = "ODD"


def _change_parameters(draw: st.DrawFn, document: dict[str, Any]) -> None:
    key = draw(st.sampled_from(["timeout", "binary_data_output", "priority", "sequence_id"]))
    document["parameters"] = draw(st.sampled_from(["ODD", {key: "ODD"}]))


def _change_outputs(draw: st.DrawFn, document: dict[str, Any]) -> None:
    key = draw(st.sampled_from(["classification", "binary_data", "shared_memory_region"]))
    asked = {"name": "scores", "parameters": {key: "ODD"}}
    document["outputs"] = draw(
        st.sampled_from(["ODD", ["ODD"], [asked], [asked, asked], [{"name": "ODD"}], []])
    )


def _change_inputs(draw: st.DrawFn, document: dict[str, Any]) -> None:
    (tensor, *_) = [*document["inputs"], {}] if isinstance(document["inputs"], list) else [{}]
    assume(tensor)
    document["inputs"] = draw(
        st.sampled_from([[tensor, tensor], [tensor, "ODD"], [tensor, {**tensor, "name": "b"}]])
    )


CHANGES = {
    "name": _change("name", "", "imag\u0000e", "\ud800", "x" * 5000, "..\n2"),
    "datatype": _change("datatype", "FP16", "FP64", "BYTES", "INT32", "BF16", "fp32", "BOOL"),
    "shape": _change(
        *("shape", [64], [2**40, 2**40], [0, 1, 8, 8], [1] * 40, [-1, 1, 8, 8]),
        *([2**62, 4], [1.0, 1, 8, 8], [[1]], [True, 1, 8, 8]),
    ),
    "data": _change("data", [], [[1.0]], [None], "AAAA", {"b64": ""}),
    "size": lambda draw, document: document["inputs"][0].__setitem__(
        "parameters",
        {"binary_data_size": draw(st.sampled_from(["ODD", 0, 1, -4, 2**63, 255, "256"]))},
    ),
    "parameters": _change("parameters", {"shared_memory_region": "a"}, [], {"x": "ODD"}),
    "element": _change_element,
    "of the request": _change_parameters,
    "outputs": _change_outputs,
    "inputs": _change_inputs,
    "id": lambda draw, document: document.__setitem__("id", draw(st.sampled_from(["ODD", 3]))),
}


def sent_over_http(body: bytes, header: str) -> Array:
    """Read the body independently of the server's own code."""
    size = int(header)
    tensor = json.loads(body[:size])["inputs"][0]
    assert tensor["name"] == "image" and tensor["datatype"] == "FP32"
    flat = tensor.get("data")
    if flat is None:
        flat = np.frombuffer(body[size:], "<f4")
        assert flat.nbytes == tensor["parameters"]["binary_data_size"]
    array = np.array(flat, np.float64).astype(np.float32).reshape(tensor["shape"])
    assert 1 <= len(array) <= 8 and array.shape[1:] == (1, 8, 8)
    return array


# -- gRPC ------------------------------------------------------------------------------------------

int64 = st.one_of(
    st.sampled_from([0, 1, 8, 64, -1, -(2**63), 2**63 - 1, 2**32]), st.integers(-9, 99)
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A sound ModelInferRequest with one or two changes, and perhaps some in its bytes."""
    count = draw(st.integers(1, 3))
    array = np.arange(count * 64, dtype=np.float32).reshape(count, 1, 8, 8)
    request = service_pb2.ModelInferRequest(model_name="mean", id="7")
    tensor = request.inputs.add(name="image", datatype="FP32", shape=array.shape)
    if draw(st.booleans()):
        request.raw_input_contents.append(array.tobytes())
    else:
        tensor.contents.fp32_contents.extend(array.reshape(-1).tolist())
    for change in draw(st.lists(st.sampled_from(range(10)), max_size=2)):
        _change_message(draw, request, change)
    raw: bytes = request.SerializeToString()
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(raw) - 1))
        raw = draw(
            st.sampled_from(
                [
                    raw[:place],
                    raw[:place] + draw(st.binary(min_size=1, max_size=4)) + raw[place + 1 :],
                    raw + draw(st.binary(max_size=8)),
                ]
            )
        )
    return raw


def _change_message(draw: st.DrawFn, request: Any, change: int) -> None:
    tensor = request.inputs[0]
    match change:
        case 0:
            tensor.name = draw(st.sampled_from(["", "imag\0e", "x" * 5000, "../x\n2"]))
        case 1:
            tensor.datatype = draw(
                st.sampled_from(["", "FP16", "FP64", "BYTES", "BF16", "INT8", "BOOL", "x\ny"])
            )
        case 2:
            shape = draw(st.lists(int64, max_size=5))
            del tensor.shape[:]
            tensor.shape.extend(shape)
        case 3:
            if tensor.shape:
                tensor.shape[draw(st.integers(0, len(tensor.shape) - 1))] = draw(int64)
        case 4:
            request.raw_input_contents.append(draw(st.binary(max_size=300)))
        case 5:
            if request.raw_input_contents:
                raw = request.raw_input_contents[0]
                request.raw_input_contents[0] = raw[: draw(st.integers(0, len(raw)))]
        case 6:
            kind = draw(st.sampled_from(["fp32", "fp64", "int", "bytes", "bool", "uint64"]))
            value: Any = {"bytes": b"x", "bool": True}.get(kind, 1)
            getattr(tensor.contents, f"{kind}_contents").extend(
                [value] * draw(st.integers(1, 3))
            )
        case 7:
            request.inputs.append(tensor)
        case 8:
            name = draw(st.sampled_from(["scores", "scores", "other", ""]))
            asked = request.outputs.add(name=name).parameters
            asked["classification"].int64_param = draw(int64)
            if draw(st.booleans()):
                asked["classification"].string_param = "2"
        case 9:
            key = draw(st.sampled_from(["timeout", "shared_memory_region", "priority"]))
            request.parameters[key].int64_param = draw(int64)
            if draw(st.booleans()):
                tensor.parameters[key].bool_param = True


def sent_over_grpc(raw: bytes) -> Array:
    request = service_pb2.ModelInferRequest.FromString(raw)
    assert request.model_name == "mean" and len(request.inputs) == 1
    tensor = request.inputs[0]
    assert tensor.name == "image" and tensor.datatype == "FP32"
    if request.raw_input_contents:
        array = np.frombuffer(request.raw_input_contents[0], "<f4")
    else:
        array = np.array(tensor.contents.fp32_contents, np.float32)
    return array.reshape(list(tensor.shape))
