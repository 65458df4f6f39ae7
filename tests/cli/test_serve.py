"""``dlzoo serve`` with wrong arguments: one line, and nothing keeps running."""

import socket
from pathlib import Path

import pytest

from tests.support.dlzoo_process import run_dlzoo
from tests.support.served_bundles import break_model, mean_bundle

FREE = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mean_bundle(tmp_path_factory.mktemp("serve") / "mean").path


def complaint(*arguments: str | Path, status: int = 2, **environment: str) -> str:
    done = run_dlzoo("serve", *arguments, **environment)
    assert done.returncode == status and done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("dlzoo: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument"),
        (("nowhere",), "nowhere is not a folder"),
        ((".", "--http", "8000"), "--http is '8000', expected HOST:PORT or off"),
        ((".", "--grpc", "127.0.0.1:99999"), "--grpc is '127.0.0.1:99999'"),
        ((".", "--http", "off", "--grpc", "off"), "are both off"),
        ((".", "--max-batch", "0"), "--max-batch"),
        ((".", "--tls-cert", "cert.pem"), "go together"),
        ((".", "--api-key-file", "missing"), "--api-key-file missing cannot be read"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], message: str) -> None:
    assert message in complaint(*arguments)


def test_an_empty_key_is_refused(bundle: Path) -> None:
    assert "The API key is empty" in complaint(bundle, *FREE, DLZOO_API_KEY="")


@pytest.mark.parametrize("option", ["--http", "--grpc"])
def test_a_port_that_is_taken(bundle: Path, option: str) -> None:
    with socket.socket() as taken:
        # As a server that would share its port: another must not slip in beside it.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--grpc" if option == "--http" else "--http"
        said = complaint(bundle, option, address, other, "127.0.0.1:0")
    assert f"cannot listen on {address} ({option})" in said and "in use" in said


def test_a_bundle_that_fails_its_proof(tmp_path: Path) -> None:
    wrong = mean_bundle(tmp_path / "wrong").path
    break_model(wrong, hashed=True)
    assert "the verdict is fail" in complaint(wrong, *FREE, status=1)


def test_a_certificate_that_is_none(bundle: Path, tmp_path: Path) -> None:
    for name in ("cert", "key"):
        (tmp_path / name).write_text("no PEM")
    files = ("--tls-cert", tmp_path / "cert", "--tls-key", tmp_path / "key")
    assert "--tls-cert and --tls-key cannot be used" in complaint(bundle, *FREE, *files)
