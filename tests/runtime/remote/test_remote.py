"""The proof over the wire: a right server passes, and every wrong one fails with a reason."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dlzoo.errors import ArgumentError, DataError, ServerError
from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.proof.limits import DEFAULT_LIMITS
from dlzoo.runtime.proof.recorded import Tolerance
from dlzoo.runtime.remote.connect import connect
from dlzoo.runtime.remote.expectation import expectation_of, recorded_expectation
from dlzoo.runtime.remote.images import compare_images
from dlzoo.runtime.remote.model import RemoteTensor
from dlzoo.runtime.remote.tensors import answer_array, answer_array_from_json, datatype_of
from dlzoo.runtime.remote.verify import RemoteReport, verify_remote
from tests.support.small_bundle import small_bundle

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("remote") / "small")


@pytest.fixture(scope="module")
def ports(bundle: Bundle) -> Iterator[dict[str, int]]:
    """A server in its own process."""
    command = [
        sys.executable,
        *("-m", "tests.support.open_inference_server"),
        str(bundle.model_path),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def url_of(protocol: str, ports: dict[str, int]) -> str:
    scheme = "grpc" if protocol == "grpc" else "http"
    return f"{scheme}://127.0.0.1:{ports[protocol]}"


def verify(
    bundle: Bundle, ports: dict[str, int], protocol: str, model: str, timeout_s: float = 20.0
) -> RemoteReport:
    remote = connect(url_of(protocol, ports), model, timeout_s=timeout_s)
    try:
        return verify_remote(remote, expectation_of(bundle))
    finally:
        remote.close()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_right_server_passes(bundle: Bundle, ports: dict[str, int], protocol: str) -> None:
    report = verify(bundle, ports, protocol, "small")
    assert report, report.explanation
    assert report.verdict == "pass"
    assert len(report.report.candidates) == len(bundle.golden_sets())
    assert {result.place for result in report.report.candidates} == {protocol}
    assert report.facts.server == "tiny 1.0" and report.facts.versions == ("1",)
    assert report.latency is not None and 0 < report.latency.p50_ms <= report.latency.p99_ms
    assert report.latency.num_requests > 10 and report.latency.batch == 1
    document = report.to_json()
    assert document["server"]["model"] == "small" and document["verdict"] == "pass"
    json.dumps(document, allow_nan=False)


def test_a_server_without_binary_data_gets_json(bundle: Bundle, ports: dict[str, int]) -> None:
    """JSON has no Inf, so the golden set with one cannot be sent, and the report says so."""
    report = verify(bundle, ports, "json", "small")
    assert report, report.explanation
    verdicts = {result.kind: result.verdict for result in report.report.candidates}
    assert verdicts == {
        "normal x1": "pass",
        "normal x2": "pass",
        "normal x3": "pass",
        "+Inf pixel": "pass",
    }
    (unsent,) = (r for r in report.report.candidates if r.kind == "+Inf pixel")
    assert "JSON has no NaN or Inf, and the server takes no binary data" in unsent.notes[0]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("wrong_weights", "output 'logits' has rho2"),
        ("nan", "elements that are finite, NaN or Inf where they should not be"),
        ("wrong_dtype", "output 'logits' has dtype float64, expected float32"),
        ("wrong_shape", "output 'logits' has shape [5], expected [1, 5]"),
        ("no_output", "no output has a name that was expected"),
        ("refuses", "the server refuses it with status"),
        ("other_input", "the server's inputs are ['pixels'], the model has ['image']"),
        (
            "other_dtype",
            "the server's input is image UINT8 [-1, 3, 8, 8], the model has image",
        ),
        ("other_shape", "the server's input is image FP32 [-1, 8, 8, 3], the model has image"),
        ("swapped", "batch 2"),
    ],
)
def test_a_wrong_server_fails(
    bundle: Bundle, ports: dict[str, int], protocol: str, model: str, says: str
) -> None:
    report = verify(bundle, ports, protocol, model)
    assert not report and report.verdict == "fail"
    assert says in report.explanation, report.explanation
    assert report.latency is None


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_unknown_model_is_named_with_the_known_ones(
    bundle: Bundle, ports: dict[str, int], protocol: str
) -> None:
    with pytest.raises(
        ServerError, match=r"has no model 'smal'.*It has small; give `model`\."
    ):
        verify(bundle, ports, protocol, "smal")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_slow_server_is_not_waited_for(
    bundle: Bundle, ports: dict[str, int], protocol: str
) -> None:
    with pytest.raises(ServerError, match=r"did not answer within 0\.3 s"):
        verify(bundle, ports, protocol, "slow", timeout_s=0.3)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_answer_that_cannot_be_read(
    bundle: Bundle, ports: dict[str, int], protocol: str
) -> None:
    with pytest.raises(ServerError, match="does not speak the Open Inference Protocol"):
        verify(bundle, ports, protocol, "garbage")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_an_address_without_a_server(bundle: Bundle, scheme: str) -> None:
    remote = connect(f"{scheme}://127.0.0.1:9", "small", timeout_s=5)
    with pytest.raises(ServerError, match=rf"^{scheme}://127\.0\.0\.1:9 cannot be reached: "):
        remote.facts()
    remote.close()


def test_a_server_that_hangs_up(bundle: Bundle, ports: dict[str, int]) -> None:
    remote = connect(url_of("hangs_up", ports), "small", timeout_s=5)
    with pytest.raises(ServerError, match="cannot be reached"):
        remote.facts()
    remote.close()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "grpc://host:8001/v2",
        "http://user:secret@host",
        "http://host/?a=b",
    ],
)
def test_malformed_urls(url: str) -> None:
    with pytest.raises(ArgumentError, match="`server` is"):
        connect(url, "small", timeout_s=1)


def test_images_agree_as_tensors_and_as_files(
    bundle: Bundle, ports: dict[str, int], photo_folder: Path, tmp_path: Path
) -> None:
    for name in ("chelsea.png", "coffee.png", "rocket.jpg"):
        (tmp_path / name).write_bytes((photo_folder / name).read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    remote = connect(url_of("http", ports), "small", timeout_s=20)
    found = compare_images(remote, remote.facts(), bundle, tmp_path)
    remote.close()
    assert [(a.sent, a.num_images, a.wrong) for a in found] == [
        ("tensors", 3, ()),
        ("files", 3, ()),
    ]


def test_another_class_on_the_server_is_named(
    bundle: Bundle, ports: dict[str, int], photo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "chelsea.png").write_bytes(
        (photo_folder / "chelsea.png").read_bytes()
    )

    class Shifted:
        """A server whose classes are shifted by one, as with a wrong list of labels."""

        protocol, url, model = "http", "http://x", "small"

        def __init__(self) -> None:
            self._inner = connect(url_of("http", ports), "small", timeout_s=20)

        def facts(self):
            return self._inner.facts()

        def infer(self, inputs, outputs):
            answers = self._inner.infer(inputs, outputs)
            return {name: np.roll(array, 1, axis=-1) for name, array in answers.items()}

        def classify(self, image: bytes) -> None:
            return None

        def close(self) -> None:
            self._inner.close()

    remote = Shifted()
    (found,) = compare_images(remote, remote.facts(), bundle, tmp_path)
    remote.close()
    assert not found
    assert "1 of 1 images sent as tensors get another class: cats/chelsea.png is class" in (
        found.reason
    )


def test_a_folder_without_images(
    bundle: Bundle, ports: dict[str, int], tmp_path: Path
) -> None:
    remote = connect(url_of("http", ports), "small", timeout_s=20)
    with pytest.raises(DataError, match="holds no image"):
        compare_images(remote, remote.facts(), bundle, tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        compare_images(remote, remote.facts(), bundle, tmp_path / "gone")
    remote.close()


def test_recorded_data_and_a_tolerance_need_no_model_file(
    bundle: Bundle, ports: dict[str, int]
) -> None:
    golden = bundle.path / "golden" / "test_data_set_1"
    tolerance = Tolerance(rtol=1e-5, atol=0.0)
    expected = recorded_expectation(
        None, golden, tolerance, model="small", limits=DEFAULT_LIMITS
    )
    for model, passes in (("small", True), ("wrong_weights", False)):
        remote = connect(url_of("grpc", ports), model, timeout_s=20)
        assert bool(verify_remote(remote, expected)) is passes
        remote.close()
    with pytest.raises(ArgumentError, match="need `model` and a tolerance"):
        recorded_expectation(None, golden, None, model="small", limits=DEFAULT_LIMITS)


def test_a_comparison_without_power_is_vacuous(bundle: Bundle, ports: dict[str, int]) -> None:
    remote = connect(url_of("http", ports), "small", timeout_s=20)
    report = verify_remote(remote, replace(expectation_of(bundle), power=None))
    remote.close()
    assert report.verdict == "vacuous" and not report


def test_answers_are_checked() -> None:
    with pytest.raises(ValueError, match=r"output 'y' has 3 bytes of data, expected 8"):
        answer_array("y", "FP32", (2,), b"abc")
    with pytest.raises(ValueError, match="has datatype 'FP31'"):
        answer_array("y", "FP31", (2,), b"")
    with pytest.raises(ValueError, match=r"has shape \[-1\]"):
        answer_array("y", "FP32", (-1,), b"")
    with pytest.raises(ValueError, match="has shape"):
        answer_array("y", "FP32", (2**20, 2**20), b"")
    with pytest.raises(ValueError, match="has 3 elements"):
        answer_array_from_json("y", "FP32", (2,), [1, 2, 3])
    with pytest.raises(ValueError, match="is not INT8"):
        answer_array_from_json("y", "INT8", (1,), [1000])
    null = answer_array_from_json("y", "FP32", (2,), [None, 1.0])
    assert np.isnan(null[0]) and null[1] == 1
    with pytest.raises(ArgumentError, match="complex64"):
        datatype_of(np.zeros(1, np.complex64))


def test_a_declared_tensor_reads_well() -> None:
    assert str(RemoteTensor(name="x", datatype="FP32", shape=(-1, 3))) == "x FP32 [-1, 3]"
