"""A model with an operator of domain ``dlzoo``, served by its kernel and by its function."""

import json
import urllib.request
from pathlib import Path

import pytest

from dlzoo.runtime.remote.connect import connect
from dlzoo.runtime.remote.expectation import expectation_of
from dlzoo.runtime.remote.verify import verify_remote
from tests.support.serving_process import serving
from tests.support.small_bundle import small_bundle


@pytest.mark.parametrize("kernels", ["native", "function"])
def test_it_gives_the_proved_answers(
    kernels: str, tmp_path: Path, native_library: Path
) -> None:
    bundle = small_bundle(tmp_path / "small", custom_op=True)
    library = native_library if kernels == "native" else "off"
    with serving(bundle.path, "--native-library", library, folder=tmp_path) as server:
        for url in (server.http, f"grpc://{server.grpc}"):
            remote = connect(url, "small", timeout_s=30)
            report = verify_remote(remote, expectation_of(bundle))
            remote.close()
            assert report, report.explanation
        with urllib.request.urlopen(f"{server.http}/v2/models/small/config") as answer:
            config = json.load(answer)
    assert config["parameters"] == {"dlzoo::Mish": {"string_value": kernels}}
