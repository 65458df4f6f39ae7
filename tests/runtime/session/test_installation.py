"""Package metadata as pip writes them; the folders are real, the packages' code is not there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dlzoo.errors import InstallationError
from dlzoo.runtime.session.installation import (
    check_installation,
    installed_onnxruntimes,
    load_onnxruntime,
)


def install_metadata(site: Path, *packages: tuple[str, str]) -> list[str]:
    """What pip leaves beside each package's files."""
    for name, version in packages:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    site.mkdir(exist_ok=True)
    return [str(site)]


def test_this_environment_has_exactly_one() -> None:
    assert len(installed_onnxruntimes()) == 1
    assert check_installation() in installed_onnxruntimes()


def test_one_package_is_fine(tmp_path: Path) -> None:
    path = install_metadata(tmp_path, ("onnxruntime-gpu", "1.31.1"), ("numpy", "2.0"))
    assert check_installation(path) == "onnxruntime-gpu"


def test_two_packages_are_refused_with_the_commands_that_mend_it(tmp_path: Path) -> None:
    path = install_metadata(tmp_path, ("onnxruntime", "1.32.0"), ("onnxruntime-gpu", "1.31.1"))
    with pytest.raises(InstallationError) as caught:
        check_installation(path)
    assert str(caught.value) == (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files, "
        "expected exactly one. Run: pip uninstall -y onnxruntime onnxruntime-gpu && "
        'pip install "onnxruntime-gpu[cuda,cudnn]"'
    )


@pytest.mark.parametrize("name", ["onnxruntime_gpu", "ONNXRuntime-GPU"])
def test_names_are_compared_as_pip_does(tmp_path: Path, name: str) -> None:
    path = install_metadata(tmp_path, (name, "1.31.1"))
    assert installed_onnxruntimes(path) == {"onnxruntime-gpu": "1.31.1"}


def test_none_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match=re.escape('Run: pip install "dlzoo[cpu]"')):
        check_installation(install_metadata(tmp_path, ("onnx", "1.23")))


def test_plugins_and_tools_do_not_clash(tmp_path: Path) -> None:
    path = install_metadata(
        tmp_path, ("onnxruntime", "1.32.0"), ("onnxruntime-ep-openvino", "1.8.1")
    )
    assert check_installation(path) == "onnxruntime"


def load_in(site: Path) -> str:
    """What a fresh interpreter says when its first onnxruntime is the one in ``site``."""
    code = """
import sys
import dlzoo.runtime.session.installation as installation
from dlzoo.errors import InstallationError
sys.path[:] = [sys.argv[1], *(p for p in sys.path if "site-packages" not in p)]
try:
    installation.load_onnxruntime()
except InstallationError as error:
    print(error)
"""
    run = [sys.executable, "-c", code, str(site)]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()


def test_files_that_another_package_took_along_are_said(tmp_path: Path) -> None:
    install_metadata(tmp_path, ("onnxruntime", "1.32.0"))
    (tmp_path / "onnxruntime").mkdir()  # what is left: a folder without __init__.py
    said = load_in(tmp_path)
    assert said.startswith("onnxruntime is installed, but its files are gone: another")
    assert said.endswith('pip install --no-cache-dir "onnxruntime"')


def test_a_library_that_does_not_load_is_said(tmp_path: Path) -> None:
    install_metadata(tmp_path, ("onnxruntime-gpu", "1.31.1"))
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(
        "raise ImportError('libcudart.so.13: cannot open shared object file')"
    )
    said = load_in(tmp_path)
    assert said.startswith("onnxruntime-gpu does not load: libcudart.so.13: cannot open")
    assert "\n" not in said


def test_two_packages_stop_before_the_import(tmp_path: Path) -> None:
    install_metadata(tmp_path, ("onnxruntime", "1.32.0"), ("onnxruntime-gpu", "1.31.1"))
    assert "are both installed" in load_in(tmp_path)


def test_loading_is_quiet() -> None:
    code = "from dlzoo.runtime.session.installation import load_onnxruntime as f; f()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == done.stderr == ""
    assert load_onnxruntime() is load_onnxruntime()
