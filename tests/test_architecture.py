"""The rooms, their floors, and what each may import (docs/DESIGN.md, section 2)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("zoo", "export", "runtime", "cli")

#: What every module may import of ours.
FOR_ALL = ("dlzoo.errors", "dlzoo.image_file", "dlzoo.version")
#: What a module under each folder may import of ours beside that and its own folder.
ALLOWED = {
    "zoo": (),
    "runtime": (),
    "export": ("dlzoo.zoo", "dlzoo.runtime"),
    "cli": ("dlzoo",),
}
#: The floors within a folder, the lowest first: a room imports from its own floor's rooms that
#: stand before it in the row, and from all floors below. A module loose in the folder is a room.
FLOORS = {
    "runtime": (
        ("onnx_reader",),
        ("bundle",),
        ("session",),
        ("proof", "images", "protocol"),
        ("diff", "deploy"),
        ("pages",),
        ("remote", "serve"),
    ),
    "export": (
        ("lowering", "graph"),
        ("opset",),
        ("reference",),
        ("convert",),
        ("plan",),
        ("diff",),
        ("prove",),
        ("evaluate",),
    ),
    "zoo": (
        ("registry", "settings", "module_wrappers", "module_state", "state_dict"),
        ("parameter_groups", "float64"),
        ("state_dict_file", "download", "operator_account"),
        ("data",),
        ("layers",),
        ("models",),
        ("initialization",),
        ("weights",),
        ("catalog",),
        ("summary",),
        ("train",),
        ("sources",),
        ("training",),
    ),
}
#: The same within rooms that have rooms of their own.
INNER_FLOORS = {
    "runtime/serve": (
        ("limits",),
        ("models",),
        ("control",),
        ("served", "metrics"),
        ("gate",),
        ("http", "grpc"),
        ("process",),
        ("workers",),
    ),
    "zoo/train": (
        ("losses", "optimize"),
        ("recipes", "scores"),
        ("run",),
        ("loop",),
    ),
}
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "numpy", "PIL", "rich")


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("dlzoo", *(part for part in parts if part != "__init__")))


MODULES = {
    module_name(path): path
    for path in [*ROOT.glob("*.py"), *(p for folder in FOLDERS for p in python_files(folder))]
}


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth of its code, for types alone too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


IMPORTS = {name: set(imports_of(path)) for name, path in MODULES.items()}


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_downwards(folder: str) -> None:
    allowed = (*FOR_ALL, f"dlzoo.{folder}", *ALLOWED[folder])
    wrong = [
        f"{name} imports {found}"
        for name, imports in IMPORTS.items()
        if name.startswith(f"dlzoo.{folder}.")
        for found in imports
        if found.startswith("dlzoo") and not found.startswith(allowed)
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("place", [*FLOORS, *INNER_FLOORS])
def test_rooms_import_downwards(place: str) -> None:
    floors = {**FLOORS, **INNER_FLOORS}[place]
    order = {room: (i, j) for i, floor in enumerate(floors) for j, room in enumerate(floor)}
    prefix = f"dlzoo.{place.replace('/', '.')}."
    wrong = []
    for name, imports in IMPORTS.items():
        if not name.startswith(prefix):
            continue
        room = name.removeprefix(prefix).split(".")[0]
        for found in imports:
            other = found.removeprefix(prefix).split(".")[0]
            if not found.startswith(prefix) or other == room:
                continue
            if other in order and room in order and order[other] > order[room]:
                wrong.append(f"{name} imports {found}")
    rooms = {path.name for path in (ROOT / place).iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(order), f"rooms without a floor: {sorted(rooms - set(order))}"
    assert not wrong, wrong


def test_no_circle_of_imports() -> None:
    """Kahn's algorithm: whatever cannot be taken away in order lies on a circle or behind one."""
    left = {
        name: {found for found in imports if found in MODULES and found != name}
        for name, imports in IMPORTS.items()
    }
    while free := [name for name, needs in left.items() if not needs]:
        for name in free:
            del left[name]
        for needs in left.values():
            needs.difference_update(free)
    assert not left, sorted(left)


#: A process in which torch, onnx and onnxscript cannot be imported.
WITHOUT_TORCH = """
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "onnx_ir"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
"""


def run_without_torch(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_of_runtime_imports_without_torch_and_onnx() -> None:
    # A __main__ would start its work.
    names = sorted(
        name
        for name in MODULES
        if name.startswith("dlzoo.runtime") and not name.endswith("__main__")
    )
    run_without_torch("[importlib.import_module(name) for name in sys.argv[1:]]", *names)


def test_a_bundle_is_verified_deployed_and_served_without_torch_and_onnx(
    tmp_path: Path,
) -> None:
    bundle = ROOT / "examples" / "lenet5_fashion_mnist" / "bundle"
    code = """
import threading, urllib.request, signal, os, socket
from dlzoo.cli.main import main
def command(*arguments):
    sys.argv = ["dlzoo", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (arguments, stop.code)
bundle, folder = sys.argv[1:]
command("verify", bundle)
command("deploy", bundle, "--target", "docker", "-o", folder + "/docker")
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
def ask():
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
                print("ready", answer.status)
                break
        except OSError:
            threading.Event().wait(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=ask).start()
command("serve", bundle, "--http", f"127.0.0.1:{port}", "--grpc", "off")
"""
    assert "ready 200" in run_without_torch(code, str(bundle), str(tmp_path))


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
