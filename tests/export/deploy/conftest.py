"""Deployments that a test may edit."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_bundle import small_bundle

from dlzoo.export.bundle import Bundle
from dlzoo.export.deploy.deployment import check_deployment, deploy_bundle
from dlzoo.export.deploy.options import DeployOptions


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A sound bundle. Do not change it."""
    return small_bundle(tmp_path_factory.mktemp("deploy") / "small")


Deploy = Callable[..., Path]


@pytest.fixture
def deployed(bundle: Bundle, tmp_path: Path) -> Deploy:
    """Deploy the bundle, or another one, and return the folder."""

    def run(target: str, which: Bundle = bundle, **options: object) -> Path:
        folder = tmp_path / target
        deploy_bundle(which, target, folder, options=DeployOptions(**options))  # type: ignore[arg-type]
        return folder

    return run


def faults_of(folder: Path) -> list[str]:
    """Every fault of a deployment, one line each."""
    return [str(fault) for fault in check_deployment(folder).faults]
