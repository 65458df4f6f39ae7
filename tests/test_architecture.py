"""Imports point one way (docs/DESIGN.md, section 2), and starting up loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("zoo", "export", "runtime", "cli")

#: What every module may import of ours.
FOR_ALL = ("dlzoo.errors", "dlzoo.image_file", "dlzoo.__version__")
#: What a module under each folder may import of ours beside that and its own folder.
ALLOWED = {
    "zoo": (),
    "export": ("dlzoo.zoo",),
    "runtime": ("dlzoo.export.bundle",),
    "cli": ("dlzoo",),
}
#: export/bundle.py and what it is made of are the part of export that runtime rests on.
NUMPY_ONLY = tuple(
    f"export/{name}.py"
    for name in (
        *(
            "bundle",
            "external_files",
            "golden_set",
            "manifest",
            "manifest_fields",
            "native_library",
        ),
        *("onnx_header", "onnx_nodes", "protobuf_wire", "staging", "stored_tensor"),
        "tensor_proto",
    )
)
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "numpy", "PIL", "rich")


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code, types excepted."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return names


def modules_of(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_one_way(folder: str) -> None:
    allowed = (*FOR_ALL, f"dlzoo.{folder}", *ALLOWED[folder])
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules_of(folder)
        for name in imported_modules(path)
        if name.startswith("dlzoo.") and not name.startswith(allowed)
    ]
    assert not wrong, wrong


def test_runtime_and_bundle_know_neither_torch_nor_onnx() -> None:
    paths = [*modules_of("runtime"), *(ROOT / name for name in NUMPY_ONLY)]
    paths.append(ROOT / "image_file.py")
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imported_modules(path)
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "onnx_ir")
    ]
    assert not wrong, wrong


def loaded_by(statement: str) -> set[str]:
    """The heavy modules that a fresh interpreter holds after a statement."""
    code = (
        f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(HEAVY) & set(done.stderr.split())


def test_importing_dlzoo_loads_nothing_heavy() -> None:
    assert loaded_by("import dlzoo") == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["export", "--help"],
        ["train", "--help"],
        ["evaluate", "--help"],
        ["--version"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    statement = f"sys.argv = ['dlzoo', *{arguments}]; import dlzoo.cli.main as m; m.main()"
    assert loaded_by(statement) == set()
