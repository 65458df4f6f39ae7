"""One server with small models, for all tests that do not change it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.served_bundles import every_dtype_bundle, mean_bundle
from tests.support.serving_process import ServingProcess, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """``mean``, ``every_dtype`` and ``slow`` (tens of milliseconds a sample)."""
    folder = tmp_path_factory.mktemp("serving")
    bundles = [
        mean_bundle(folder / "mean").path,
        every_dtype_bundle(folder / "every_dtype").path,
        mean_bundle(folder / "slow", name="slow", work=6).path,
    ]
    limits = ("--max-request-mib", "2", "--max-json-mib", "1", "--max-image-pixels", "1000000")
    with serving(*bundles, *limits, "--threads", "1", folder=folder) as process:
        yield process


@pytest.fixture(scope="session")
def machine_folder(server: ServingProcess) -> str:
    """The folder of the bundles, which no answer may contain."""
    return str(Path(server.log_path).parent)


@pytest.fixture(scope="module")
def client(server: ServingProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http, timeout=30) as client:
        yield client
