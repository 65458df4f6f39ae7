"""Damaged requests over HTTP and gRPC: refused in one line, or answered correctly."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.support.damaged_requests import (
    Array,
    bodies,
    messages,
    sent_over_grpc,
    sent_over_http,
)
from tests.support.served_bundles import binary_request
from tests.support.serving_process import ServingProcess

#: The server is one for all examples, and a busy machine may take its time for one of them.
over_the_wire = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
#: What a client's mistake may be told as; 501 is shared memory, 504 the request's own timeout.
REFUSED = {400, 413, 501, 504}
REFUSED_CODES = {
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
    "DEADLINE_EXCEEDED",
}


@pytest.fixture(scope="module")
def client(server: ServingProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def call(server: ServingProcess) -> Iterator[Callable[[bytes], Any]]:
    """The call ModelInfer, with any bytes."""
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        yield channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=bytes,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )


@pytest.fixture
def neighbours(server: ServingProcess) -> Iterator[None]:
    """Send sound requests meanwhile, alone and in batches: each gets its own answer."""
    stop, wrong, answered = threading.Event(), [], 0

    def ask() -> None:
        nonlocal answered
        with httpx.Client(base_url=server.http, timeout=60) as client:
            while not stop.is_set():
                value = float(answered % 89)
                array = np.full((1 + answered % 2, 1, 8, 8), value, np.float32)
                body, size = binary_request({"image": ("FP32", array)})
                model = "slow" if answered % 4 == 0 else "mean"
                answer = client.post(
                    f"/v2/models/{model}/infer",
                    content=body,
                    headers={"Inference-Header-Content-Length": str(size)},
                )
                got = (
                    answer.json()["outputs"][0]["data"][:2]
                    if answer.is_success
                    else answer.text
                )
                if got != pytest.approx([value, -value], rel=1e-5):
                    wrong.append((value, got))
                answered += 1
                stop.wait(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stop.set()
    thread.join()
    assert answered > 0 and not wrong


def check_refusal(message: str, machine_folder: str) -> None:
    assert message and len(message) <= 1000 and len(message.splitlines()) == 1, message
    for secret in (machine_folder, "Traceback", 'File "', ".py"):
        assert secret not in message, message


def is_mean_of(got: Array, sent: Array) -> bool:
    mean = sent.astype(np.float64).reshape(len(sent), 64).mean(1)
    with np.errstate(invalid="ignore"):
        # The bound of a float32 sum of 64, whatever its order.
        bound = 64 * np.finfo(np.float32).eps * np.abs(sent.reshape(len(sent), 64)).mean(1)
    expected = np.stack([mean, -mean], 1)
    has_overflowed = ~np.isfinite(got) | ~np.isfinite(expected)
    return bool((has_overflowed | (np.abs(got - expected) <= bound[:, None] + 1e-44)).all())


@pytest.mark.usefixtures("neighbours")
@over_the_wire
@given(request=bodies(), model=st.sampled_from(["mean", "mean", "mean", "slow"]))
def test_http(
    client: httpx.Client, machine_folder: str, request: tuple[bytes, str], model: str
) -> None:
    body, header = request
    headers = {"Inference-Header-Content-Length": header}
    answer = client.post(f"/v2/models/{model}/infer", content=body, headers=headers)
    event(f"status {answer.status_code}")
    if not answer.is_success:
        assert answer.status_code in REFUSED, (answer.status_code, answer.text)
        assert answer.headers["content-type"] == "application/json"
        document = answer.json()
        assert list(document) == ["error"]
        check_refusal(document["error"], machine_folder)
        return
    sent = sent_over_http(body, header)
    size = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    (output,) = json.loads(answer.content[:size])["outputs"]
    if output["datatype"] == "BYTES":  # as classes
        assert output["shape"][0] == len(sent)
        return
    got = output.get("data")
    if got is None:
        got = np.frombuffer(answer.content[size:], np.float32)
    assert output["shape"] == [len(sent), 2]
    assert is_mean_of(np.array(got, np.float64).reshape(-1, 2), sent)


@pytest.mark.usefixtures("neighbours")
@over_the_wire
@given(raw=messages())
def test_grpc(call: Callable[[bytes], Any], machine_folder: str, raw: bytes) -> None:
    import grpc

    try:
        answer = call(raw)
    except grpc.RpcError as error:
        code, details = error.code().name, error.details()
        event(code)
        if code == "NOT_FOUND":  # the bytes that changed were of the model's name or version
            assert service_pb2.ModelInferRequest.FromString(raw).model_name != "mean" or (
                service_pb2.ModelInferRequest.FromString(raw).model_version
            )
        else:
            assert code in REFUSED_CODES, (code, details)
        check_refusal(details, machine_folder)
        return
    event("OK")
    sent = sent_over_grpc(raw)
    assert 1 <= len(sent) <= 8 and math.prod(sent.shape[1:]) == 64
    (output,) = answer.outputs
    if output.datatype == "BYTES":
        assert output.shape[0] == len(sent)
        return
    got = np.frombuffer(answer.raw_output_contents[0], np.float32).astype(np.float64)
    assert is_mean_of(got.reshape(-1, 2), sent)


def test_a_stream_of_unreadable_messages(server: ServingProcess) -> None:
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=bytes,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            next(call(iter([b"\0"])))
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert "not the message that this call expects" in caught.value.details()


def test_nothing_was_logged(server: ServingProcess) -> None:
    assert "Traceback" not in server.log
