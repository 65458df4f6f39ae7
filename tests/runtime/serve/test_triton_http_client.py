"""A real server over HTTP, through Triton's own client."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.support.served_bundles import NUMERIC_DATATYPES
from tests.support.serving_process import ServingProcess

Array = np.ndarray[Any, Any]
ONES = np.ones((2, 1, 8, 8), np.float32)


@pytest.fixture(scope="module")
def client(server: ServingProcess) -> Iterator[triton.InferenceServerClient]:
    address = server.http.removeprefix("http://")
    with triton.InferenceServerClient(address, concurrency=4) as client:
        yield client


def tensor(
    array: Array, name: str = "image", datatype: str = "FP32", *, binary: bool = True
) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def extremes() -> dict[str, Array]:
    """Each datatype's lowest and highest value; of a float the largest and the smallest but 0."""
    arrays: dict[str, Array] = {}
    for datatype, name in NUMERIC_DATATYPES.items():
        dtype = np.dtype(name)
        if dtype.kind == "b":
            arrays[datatype] = np.array([[True, False]])
        elif dtype.kind == "f":
            limits = np.finfo(dtype)
            arrays[datatype] = np.array([[limits.max, -limits.smallest_subnormal]], dtype)
        else:
            bounds = np.iinfo(dtype)
            arrays[datatype] = np.array([[bounds.min, bounds.max]], dtype)
    return arrays


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("mean") and client.is_model_ready("mean", "1")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("mean")["inputs"] == [
        {"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}
    ]
    config = client.get_model_config("mean", "1")
    assert config["max_batch_size"] == 8
    assert config["input"][0]["dims"] == [1, 8, 8]


@pytest.mark.parametrize("sent", ["JSON", "binary"])
@pytest.mark.parametrize("asked", ["JSON", "binary"])
def test_every_dtype(client: triton.InferenceServerClient, sent: str, asked: str) -> None:
    arrays = extremes()
    inputs = []
    for datatype, array in arrays.items():
        # The client writes no FP16 as JSON.
        binary = sent == "binary" or datatype == "FP16"
        inputs.append(tensor(array, f"{datatype}_in", datatype, binary=binary))
    outputs = [
        triton.InferRequestedOutput(f"{t}_out", binary_data=asked == "binary" or t == "FP16")
        for t in arrays
    ]
    answer = client.infer("every_dtype", inputs, outputs=outputs, request_id="42")
    assert answer.get_response()["id"] == "42"
    for datatype, array in arrays.items():
        got = answer.as_numpy(f"{datatype}_out")
        assert got.dtype == array.dtype and np.array_equal(got, array), datatype


def test_all_outputs_and_classes(client: triton.InferenceServerClient) -> None:
    answer = client.infer("mean", [tensor(ONES * 3)])
    assert answer.as_numpy("scores") == pytest.approx(np.array([[3, -3], [3, -3]]))
    for binary in (True, False):
        wanted = triton.InferRequestedOutput("scores", binary_data=binary, class_count=2)
        classes = client.infer("mean", [tensor(ONES)], outputs=[wanted]).as_numpy("scores")
        texts = [[t.decode() if isinstance(t, bytes) else t for t in row] for row in classes]
        assert texts == [["1.0:0:bright", "-1.0:1:dark"]] * 2


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: triton.InferenceServerClient, algorithm: str) -> None:
    answer = client.infer(
        "mean",
        [tensor(np.repeat(ONES, 4, 0), binary=False)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert answer.as_numpy("scores")[:, 0] == pytest.approx(np.ones(8))


def test_many_at_once_each_get_their_own(client: triton.InferenceServerClient) -> None:
    values = range(1, 41)
    calls = [
        client.async_infer("mean", [tensor(ONES * v, binary=v % 2 == 0)], request_id=str(v))
        for v in values
    ]
    for value, call in zip(values, calls, strict=True):
        answer = call.get_result()
        assert answer.get_response()["id"] == str(value)
        assert answer.as_numpy("scores")[0] == pytest.approx([value, -value])


@pytest.mark.parametrize(
    ("inputs", "model", "status", "message"),
    [
        ([tensor(ONES, "picture")], "mean", "400", "got inputs picture, expected image"),
        ([tensor(ONES.astype("f8"), datatype="FP64")], "mean", "400", "datatype FP64"),
        ([tensor(ONES[:, :, :7])], "mean", "400", "expected [batch, 1, 8, 8]"),
        ([tensor(np.repeat(ONES, 5, 0))], "mean", "400", "expected 1 to 8"),
        ([tensor(ONES)], "nobody", "404", "model 'nobody' is unknown"),
    ],
)
def test_errors(
    client: triton.InferenceServerClient,
    inputs: list[triton.InferInput],
    model: str,
    status: str,
    message: str,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, inputs)
    assert caught.value.status() == status and message in caught.value.message()


def test_more_errors(client: triton.InferenceServerClient) -> None:
    def refused(call: Any, *arguments: Any, **options: Any) -> str:
        with pytest.raises(InferenceServerException) as caught:
            call(*arguments, **options)
        return f"{caught.value.status()} {caught.value.message()}"

    one = [tensor(ONES)]
    assert "400 " in refused(client.infer, "mean", one, timeout=-1)
    other = [triton.InferRequestedOutput("classes")]
    assert "no output 'classes'" in refused(client.infer, "mean", one, outputs=other)
    assert refused(client.infer, "mean", one, model_version="7").startswith("404 ")
    assert refused(client.get_model_metadata, "nobody").startswith("404 ")
    assert refused(client.get_model_config, "nobody").startswith("404 ")
    assert refused(client.load_model, "nobody").startswith("404 ")
    assert refused(client.load_model, "mean", config="{}").startswith("501 ")
    shared = triton.InferInput("image", [2, 1, 8, 8], "FP32")
    shared.set_shared_memory("region", ONES.nbytes)
    assert "501 shared memory is not supported" in refused(client.infer, "mean", [shared])


def test_statistics_count(client: triton.InferenceServerClient) -> None:
    def counts() -> tuple[int, int, int]:
        (stats,) = client.get_inference_statistics("mean", "1")["model_stats"]
        inference = stats["inference_stats"]
        return (
            int(stats["inference_count"]),
            int(inference["success"]["count"]),
            int(inference["fail"]["count"]),
        )

    samples, right, wrong = counts()
    client.infer("mean", [tensor(ONES)])
    with pytest.raises(InferenceServerException):
        client.infer("mean", [tensor(ONES, "picture")])
    assert counts() == (samples + 2, right + 1, wrong + 1)
    names = {stats["name"] for stats in client.get_inference_statistics()["model_stats"]}
    assert names == {"mean", "every_dtype", "slow"}


def test_the_repository(client: triton.InferenceServerClient) -> None:
    client.unload_model("mean")
    assert not client.is_model_ready("mean")
    index = {m["name"]: m["state"] for m in client.get_model_repository_index()}
    assert index == {"mean": "UNAVAILABLE", "every_dtype": "READY", "slow": "READY"}
    client.load_model("mean")
    assert client.is_model_ready("mean")
    assert client.infer("mean", [tensor(ONES)]).as_numpy("scores")[0, 0] == pytest.approx(1)
