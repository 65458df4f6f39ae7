"""``dlzoo verify --server`` through real processes, against ``dlzoo serve`` and a server that lies."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlzoo.runtime.bundle.bundle import Bundle
from tests.support.dlzoo_process import run_dlzoo
from tests.support.small_bundle import small_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return small_bundle(tmp_path_factory.mktemp("verify") / "small")


def started(*command: str | Path) -> Iterator[dict[str, object]]:
    """A server until the tests are done; yields the JSON that it prints when it is ready."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        text = ""
        for line in process.stdout:
            text += line
            try:
                document = json.loads(text)
            except ValueError:
                continue
            break
        yield document
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


@pytest.fixture(scope="module")
def lying_server(bundle: Bundle) -> Iterator[str]:
    for ports in started("-m", "tests.support.open_inference_server", bundle.model_path):
        yield f"http://127.0.0.1:{ports['http']}"


@pytest.fixture(scope="module")
def own_server(bundle: Bundle) -> Iterator[dict[str, str]]:
    options = (
        "--http",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--drain-delay",
        "0",
        "--json",
    )
    for document in started("-m", "dlzoo", "serve", bundle.path, *options):
        addresses = {name: str(document[name]) for name in ("http", "grpc")}
        yield {
            name: address if "://" in address else f"{name}://{address}"
            for name, address in addresses.items()
        }


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_our_own_server_is_proved(
    bundle: Bundle,
    own_server: dict[str, str],
    protocol: str,
    photo_folder: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "cat.png").write_bytes((photo_folder / "chelsea.png").read_bytes())
    done = run_dlzoo(
        *(
            "verify",
            bundle.path,
            "--server",
            own_server[protocol],
            "--data",
            tmp_path,
            "--json",
        )
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "pass" and document["server"]["model"] == "small"
    assert document["latency"]["p50_ms"] > 0
    sent = {"http": ["tensors", "files"], "grpc": ["tensors"]}[protocol]
    assert [(images["sent"], images["wrong"]) for images in document["images"]] == [
        (name, []) for name in sent
    ]


def test_a_person_reads_server_latency_and_verdict(bundle: Bundle, lying_server: str) -> None:
    done = run_dlzoo("verify", bundle.path, "--server", lying_server)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PASS  small, opset 20")
    assert "tiny 1.0 at" in done.stdout and "latency  p50" in done.stdout


def test_wrong_weights_give_exit_status_1(bundle: Bundle, lying_server: str) -> None:
    arguments = ["verify", bundle.path, "--server", lying_server, "--model", "wrong_weights"]
    done = run_dlzoo(*arguments, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["verdict"] == "fail"
    assert done.stderr.startswith(
        f"dlzoo: wrong_weights at {lying_server}: the verdict is fail."
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["{bundle}", "--server", "http://127.0.0.1:9"],
            "cannot be reached: Connection refused.",
        ),
        (["{bundle}", "--server", "nonsense"], "--server is 'nonsense', expected http://"),
        (["--server", "{server}"], "--server needs a BUNDLE to compare with"),
        (["{bundle}", "--server", "{server}", "--model", "x"], "has no model 'x'"),
        (
            ["{bundle}", "--server", "{server}", "--provider", "cpu"],
            "--provider is for a session",
        ),
        (["{bundle}", "--model", "x"], "--model and --data need --server"),
        ([], "dlzoo verify needs BUNDLE"),
    ],
)
def test_mistakes_are_one_line(
    bundle: Bundle, lying_server: str, arguments: list[str], says: str
) -> None:
    filled = [text.format(bundle=bundle.path, server=lying_server) for text in arguments]
    done = run_dlzoo("verify", *filled)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_the_proof_over_the_wire_loads_neither_torch_nor_onnx(
    bundle: Bundle, lying_server: str
) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['dlzoo', 'verify', {str(bundle.path)!r}, '--server', {lying_server!r}]\n"
        "import dlzoo.cli.main as m\n"
        "try:\n    m.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
