"""Bodies of requests: JSON and binary parts, sound and broken."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlzoo.runtime.protocol.refusal import Reason, RefusalError, without_paths
from dlzoo.runtime.serve.http.http_body import decompressed
from dlzoo.runtime.serve.http.http_infer import parse_request, response_body
from dlzoo.runtime.serve.limits import ServerLimits
from dlzoo.runtime.serve.models.infer_request import OutputTensor
from tests.support.served_bundles import binary_request

LIMITS = ServerLimits(json_bytes=10_000)
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def refused(body: bytes, header_length: str | None = None) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        parse_request(body, header_length.encode() if header_length else None, LIMITS)
    return caught.value


def test_binary_parts_follow_the_json_in_order() -> None:
    y = np.array([[True], [False]])
    body, size = binary_request({"x": ("FP32", X), "y": ("BOOL", y)}, id="7")
    request = parse_request(body, str(size).encode(), LIMITS)
    assert request.id == "7"
    assert np.array_equal(request.inputs["x"][1], X)
    assert np.array_equal(request.inputs["y"][1], y)


def test_a_truncated_binary_part_is_refused() -> None:
    body, size = binary_request({"x": ("FP32", X)})
    assert "should have 24 bytes of binary data, but only 23 are left" in str(
        refused(body[:-1], str(size))
    )
    assert "1 bytes follow the last input" in str(refused(body + b"\0", str(size)))
    assert "but the body has" in str(refused(body, str(len(body) + 1)))
    assert "not a whole number" in str(refused(body, "-5"))
    assert "not JSON" in str(refused(body, str(size - 1)))


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0], **changes}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "is not a JSON object"),
        ({}, "no list 'inputs'"),
        ({"inputs": []}, "no list 'inputs'"),
        ({"inputs": {"x": 1}}, "no list 'inputs'"),
        ({"inputs": [1]}, "is not an object"),
        ({"inputs": [entry(name=None)]}, "no text 'name'"),
        ({"inputs": [entry(), entry()]}, "'x' is given twice"),
        ({"inputs": [entry(datatype="FP33")]}, "expected one of"),
        ({"inputs": [entry(parameters=[])]}, "'parameters' is not an object"),
        ({"inputs": [entry(parameters={"binary_data_size": 4})]}, "both 'data' and"),
        ({"inputs": [entry(), {"name": "y", "shape": [1], "datatype": "FP32"}]}, "no list 'data'"),
        ({"inputs": [entry()], "outputs": 3}, "'outputs' is not a list"),
        ({"inputs": [entry()], "outputs": [3]}, "an entry of 'outputs'"),
        ({"inputs": [entry()], "outputs": [{}]}, "no text 'name'"),
        ({"inputs": [entry()], "id": 3}, "no text 'id'"),
        ({"inputs": [entry()], "parameters": {"timeout": -1}}, "'timeout'"),
        ({"inputs": [entry()], "parameters": {"timeout": "1"}}, "'timeout'"),
        ({"inputs": [entry()], "parameters": {"binary_data_output": 1}}, "true or false"),
        (
            {"inputs": [entry()], "outputs": [{"name": "y", "parameters": {"binary_data": "no"}}]},
            "'binary_data' should be true or false",
        ),
        (
            {"inputs": [entry()], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
            "'classification'",
        ),
    ],
)  # fmt: skip
def test_wrong_documents_are_refused(document: object, message: str) -> None:
    assert message in str(refused(json.dumps(document).encode()))


def test_sizes_of_binary_parts_are_whole_numbers() -> None:
    for size in (-1, 4.0, True, "4"):
        document = {"inputs": [entry(parameters={"binary_data_size": size})]}
        del document["inputs"][0]["data"]
        text = json.dumps(document).encode()
        assert "binary_data_size" in str(refused(text + b"\0\0\0\0", str(len(text))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not"),
        (b'{"inputs": NaN}', "holds NaN, which JSON does not have"),
        (b'{"inputs": -Infinity}', "holds -Infinity"),
        (b"[" * 9000, "nested too deeply"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit"),
    ],
)
def test_invalid_json_is_refused(text: bytes, message: str) -> None:
    assert message in str(refused(text))


def test_huge_json_is_refused_before_it_is_parsed() -> None:
    refusal = refused(b"[" + b"1," * 6000 + b"1]")
    assert refusal.reason is Reason.TOO_LARGE and "binary data" in str(refusal)


def test_shared_memory_is_refused() -> None:
    for document in (
        {"inputs": [entry(parameters={"shared_memory_region": "a"})]},
        {"inputs": [entry()], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "a"}}]},
    ):  # fmt: skip
        assert refused(json.dumps(document).encode()).reason is Reason.UNSUPPORTED


@given(st.binary(max_size=300), st.one_of(st.none(), st.integers(-3, 400).map(str)))
def test_any_bytes_are_refused(body: bytes, header_length: str | None) -> None:
    assert str(refused(body, header_length))


@given(st.data())
def test_a_changed_request_is_read_or_refused(data: st.DataObject) -> None:
    body, size = binary_request({"x": ("FP32", X)})
    place = data.draw(st.integers(0, len(body) - 1))
    changed = body[:place] + data.draw(st.binary(max_size=3)) + body[place + 1 :]
    try:
        request = parse_request(changed, str(size).encode(), LIMITS)
    except RefusalError:
        return
    for datatype, array in request.inputs.values():
        assert datatype and array.size <= 24


def test_an_answer_holds_json_and_binary_parts() -> None:
    outputs = [OutputTensor("a", "FP32", X, True), OutputTensor("b", "FP32", X[:1], False)]
    body, size = response_body("m", "1", "7", outputs)
    assert size is not None
    document = json.loads(body[:size])
    assert document["id"] == "7"
    assert document["outputs"][0]["parameters"] == {"binary_data_size": 24}
    assert body[size:] == X.tobytes()
    assert document["outputs"][1]["data"] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies(encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    assert decompressed(pack(b"abc"), encoding, 10) == b"abc"
    bomb = pack(b"\0" * 10_000_000)
    assert len(bomb) < 20_000
    for body, message in (
        (bomb, "has 1,001 bytes or more"),
        (pack(b"abc")[:-2], "is incomplete"),
        (pack(b"abc") + b"x", "other bytes follow"),
        (b"abc", f"is not {encoding}"),
    ):
        with pytest.raises(RefusalError, match=message):
            decompressed(body, encoding, 1000)
    with pytest.raises(RefusalError, match="expected gzip, deflate or identity"):
        decompressed(b"", "br", 1000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/me/models/lenet/1: model.onnx was changed", "1: model.onnx was changed"),
        ("no file '/etc/secret/key.pem' here", "no file 'key.pem' here"),
        (r"C:\models\lenet\1 is bad", "1 is bad"),
        ("~/models/lenet is bad", "lenet is bad"),
        ("/my dir/x y/m lacks it", "m lacks it"),
        ("expected application/json, see /docs", "expected application/json, see /docs"),
        ("3/4 of a/b", "3/4 of a/b"),
    ],
)
def test_messages_hold_no_paths(text: str, told: str) -> None:
    assert without_paths(text, "/my dir/x y") == told
