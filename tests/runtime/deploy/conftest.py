"""Deployments that a test may edit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dlzoo.runtime.bundle.bundle import Bundle
from dlzoo.runtime.deploy.deployment import deploy_bundle
from dlzoo.runtime.deploy.options import DeployOptions
from tests.support.small_bundle import small_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A sound bundle. Do not change it."""
    return small_bundle(tmp_path_factory.mktemp("deploy") / "small")


@pytest.fixture(scope="session")
def plain_deployments(
    bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The bundle for a target, with default options; written once, not to be changed."""
    folder = tmp_path_factory.mktemp("plain")

    def find(target: str) -> Path:
        if not (folder / target).exists():
            deploy_bundle(bundle, target, folder / target, options=DeployOptions())
        return folder / target

    return find


Deploy = Callable[..., Path]


@pytest.fixture
def deployed(
    bundle: Bundle, plain_deployments: Callable[[str], Path], tmp_path: Path
) -> Deploy:
    """Deploy the bundle, or another one, and return the folder."""

    def run(target: str, which: Bundle | None = None, **options: object) -> Path:
        folder = tmp_path / target
        if which is None and not options:
            shutil.copytree(plain_deployments(target), folder)
        else:
            deploy_bundle(which or bundle, target, folder, options=DeployOptions(**options))  # type: ignore[arg-type]
        return folder

    return run
