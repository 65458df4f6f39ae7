"""What ships is what is in the tree: no folder forgotten, no stray module."""

import tomllib
from pathlib import Path

from dlzoo.runtime.session.native_library import packaged_library_path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOT_MODULES = {
    *("__init__.py", "__main__.py", "api.py", "errors.py", "image_file.py"),
    *("pytest_plugin.py", "testing.py", "version.py"),
}
FOLDERS = ("zoo", "export", "runtime", "cli")


def test_every_folder_with_python_is_a_listed_package() -> None:
    folders = {
        path.parent.relative_to(ROOT)
        for name in FOLDERS
        for path in (ROOT / name).rglob("*.py")
    }
    expected = {"dlzoo", *(f"dlzoo.{'.'.join(folder.parts)}" for folder in folders)}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_every_package_has_an_init() -> None:
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        assert (folder / "__init__.py").is_file(), package


def test_no_stray_module_in_the_root() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == ROOT_MODULES


def test_every_data_file_is_shipped() -> None:
    shipped = PROJECT["tool"]["setuptools"]["package-data"]
    for name in FOLDERS:
        for path in (ROOT / name).rglob("*"):
            if not path.is_file() or path.suffix in (".py", ".pyc"):
                continue
            if path == packaged_library_path():  # built on this machine, for this machine
                continue
            package = ".".join(["dlzoo", *path.parent.relative_to(ROOT).parts])
            patterns = shipped.get(package, [])
            assert any(path.match(pattern) for pattern in patterns), path


def test_constraints_pin_every_direct_dependency() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["cpu"], *extras["train"]]
    wanted += [*extras["serve"], *extras["dev"]]
    names = {requirement.split(">")[0].split("[")[0].lower() for requirement in wanted}
    names -= {"dlzoo"}  # its own extras
    assert names <= pinned, names - pinned
