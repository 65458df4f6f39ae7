"""A real server over gRPC, through Triton's own client."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.support.served_bundles import NUMERIC_DATATYPES
from tests.support.serving_process import ServingProcess

Array = np.ndarray[Any, Any]
ONES = np.ones((2, 1, 8, 8), np.float32)


@pytest.fixture(scope="module")
def client(server: ServingProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def stub(server: ServingProcess) -> Iterator[Any]:
    """The bare calls, for requests that the client would not send."""
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(array: Array, name: str = "image", datatype: str = "FP32") -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def message(array: Array = ONES, model: str = "mean") -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="image", datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request


def refused(call: Any, request: Any, **how: Any) -> tuple[str, str]:
    import grpc

    with pytest.raises(grpc.RpcError) as caught:
        call(request, **how)
    return caught.value.code().name, caught.value.details()


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("mean") and not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata("mean", as_json=True)
    assert metadata["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": ["-1", "1", "8", "8"]}
    ]
    config = client.get_model_config("mean").config
    assert config.max_batch_size == 8 and list(config.input[0].dims) == [1, 8, 8]


def test_inference(client: triton.InferenceServerClient) -> None:
    answer = client.infer("mean", [tensor(ONES * 3)], request_id="42")
    assert answer.as_numpy("scores") == pytest.approx(np.array([[3, -3], [3, -3]]))
    assert answer.get_response().id == "42"
    wanted = triton.InferRequestedOutput("scores", class_count=2)
    classes = client.infer("mean", [tensor(ONES)], outputs=[wanted]).as_numpy("scores")
    assert classes.tolist() == [[b"1.0:0:bright", b"-1.0:1:dark"]] * 2


def test_every_dtype_raw_and_typed(client: triton.InferenceServerClient, stub: Any) -> None:
    arrays: dict[str, Array] = {}
    for datatype, dtype in NUMERIC_DATATYPES.items():
        kind = np.dtype(dtype).kind
        limits = None if kind in "bf" else np.iinfo(dtype)
        values = [1, 0] if limits is None else [limits.min, limits.max]
        arrays[datatype] = np.array([values], dtype)
    tensors = [tensor(array, f"{t}_in", t) for t, array in arrays.items()]
    answer = client.infer("every_dtype", tensors)
    for datatype, array in arrays.items():
        assert np.array_equal(answer.as_numpy(f"{datatype}_out"), array), datatype

    # FP16 has no typed contents, and raw and typed ones do not mix.
    field = {
        "BOOL": "bool",
        "INT64": "int64",
        "UINT64": "uint64",
        "FP32": "fp32",
        "FP64": "fp64",
    }
    request = service_pb2.ModelInferRequest(model_name="every_dtype")
    for datatype, array in arrays.items():
        given = request.inputs.add(name=f"{datatype}_in", datatype=datatype, shape=[1, 2])
        kind = field.get(datatype, "uint" if datatype.startswith("UINT") else "int")
        if datatype != "FP16":
            getattr(given.contents, f"{kind}_contents").extend(array.reshape(-1).tolist())
    assert refused(stub.ModelInfer, request) == (
        "INVALID_ARGUMENT",
        "input 'FP16_in' of datatype FP16 needs raw_input_contents",
    )


def test_typed_contents(stub: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name="mean")
    given = request.inputs.add(name="image", datatype="FP32", shape=[2, 1, 8, 8])
    given.contents.fp32_contents.extend([2.0] * 128)
    answer = stub.ModelInfer(request)
    scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
    assert scores == pytest.approx([2, -2, 2, -2])


def too_short() -> Any:
    request = message()
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]
    return request


def typed_and_raw() -> Any:
    request = message()
    request.inputs[0].contents.fp32_contents.append(1.0)
    return request


def of_wrong_type() -> Any:
    request = service_pb2.ModelInferRequest(model_name="mean")
    given = request.inputs.add(name="image", datatype="FP32", shape=[1, 1, 8, 8])
    given.contents.fp64_contents.extend([1.0] * 64)
    return request


def negative() -> Any:
    request = message()
    request.inputs[0].shape[0] = -2
    return request


def twice() -> Any:
    request = message()
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])
    return request


@pytest.mark.parametrize(
    ("make", "code", "details"),
    [
        (too_short, "INVALID_ARGUMENT", "511 bytes of data, expected 512"),
        (typed_and_raw, "INVALID_ARGUMENT", "both contents and raw_input_contents"),
        (of_wrong_type, "INVALID_ARGUMENT", "has fp64_contents, expected fp32_contents"),
        (negative, "INVALID_ARGUMENT", "expected whole numbers from 0 up"),
        (twice, "INVALID_ARGUMENT", "is given twice"),
        (lambda: message(np.ones((9, 1, 8, 8), "f4")), "INVALID_ARGUMENT", "expected 1 to 8"),
        (lambda: message(model="nobody"), "NOT_FOUND", "model 'nobody' is unknown"),
        (lambda: message(np.ones((5000, 1, 8, 8), "f8")), "INVALID_ARGUMENT", "bytes of data"),
    ],
)  # fmt: skip
def test_requests_that_do_not_fit(stub: Any, make: Any, code: str, details: str) -> None:
    got_code, got_details = refused(stub.ModelInfer, make())
    if got_code == "RESOURCE_EXHAUSTED":  # beyond the limit of a message: gRPC's own text
        assert "larger than max" in got_details
        return
    assert got_code == code and details in got_details


def test_unsupported_calls(stub: Any) -> None:
    code, _ = refused(
        stub.SystemSharedMemoryStatus, service_pb2.SystemSharedMemoryStatusRequest()
    )
    assert code == "UNIMPLEMENTED"


def test_deadlines_and_cancellation(stub: Any, client: triton.InferenceServerClient) -> None:
    def cancelled() -> int:
        stats = client.get_inference_statistics("slow").model_stats[0].inference_stats
        return int(stats.fail.count)

    before = cancelled()
    busy = [stub.ModelInfer.future(message(np.ones((8, 1, 8, 8), "f4"), "slow")) for _ in "ab"]
    assert refused(stub.ModelInfer, message(model="slow"), timeout=0.02)[0] == (
        "DEADLINE_EXCEEDED"
    )
    waiting = stub.ModelInfer.future(message(model="slow"))
    time.sleep(0.02)
    waiting.cancel()
    for call in busy:
        assert call.result().model_name == "slow"
    for _ in range(200):
        if cancelled() >= before + 2:
            break
        time.sleep(0.02)
    assert cancelled() == before + 2


def test_a_stream_goes_on_after_an_error(client: triton.InferenceServerClient) -> None:
    answers: list[Any] = []
    done = threading.Event()

    def collect(result: Any, error: Any) -> None:
        answers.append(error if error is not None else result.as_numpy("scores")[0, 0])
        if len(answers) == 3:
            done.set()

    client.start_stream(collect)
    client.async_stream_infer("mean", [tensor(ONES)])
    client.async_stream_infer("mean", [tensor(ONES, "picture")])
    client.async_stream_infer("mean", [tensor(ONES * 2)])
    assert done.wait(10)
    client.stop_stream()
    assert answers[0] == pytest.approx(1) and answers[2] == pytest.approx(2)
    assert isinstance(answers[1], InferenceServerException)
    assert "got inputs picture" in str(answers[1])


def test_the_repository(client: triton.InferenceServerClient, machine_folder: str) -> None:
    client.unload_model("mean")
    assert not client.is_model_ready("mean")
    states = {m.name: m.state for m in client.get_model_repository_index().models}
    assert states == {"mean": "UNAVAILABLE", "every_dtype": "READY", "slow": "READY"}
    client.load_model("mean")
    assert client.is_model_ready("mean")
    assert machine_folder not in str(client.get_model_repository_index())
    with pytest.raises(InferenceServerException, match="is unknown"):
        client.load_model("nobody")


def test_compression(client: triton.InferenceServerClient) -> None:
    answer = client.infer("mean", [tensor(ONES)], compression_algorithm="gzip")
    assert answer.as_numpy("scores")[0, 0] == pytest.approx(1)
