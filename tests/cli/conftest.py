"""One bundle for all tests of the command line, made by a real process."""

from pathlib import Path

import pytest

from tests.support.dlzoo_process import run_dlzoo


@pytest.fixture(scope="session")
def lenet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    done = run_dlzoo("export", "lenet5_relu", "-o", "lenet", "--weights", "random", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "lenet"
