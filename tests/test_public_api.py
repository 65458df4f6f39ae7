"""The public surface: the names of the package, and signatures that show every parameter."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import dlzoo
from dlzoo import errors
from dlzoo.api import export_model
from dlzoo.export.prove.proof import export_and_report

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
#: Not ``dlzoo.silu.default``: that is an operator of PyTorch's dispatcher.
_USED = re.compile(r"\bdlzoo\.([A-Za-z_]\w*)(?!\w|\.default)")
_IMPORTED = re.compile(r"from dlzoo import (?:\(([^)]*)\)|([\w, ]+))")


@pytest.mark.parametrize("name", dlzoo.__all__)
def test_every_public_name_loads(name: str) -> None:
    if name in ("train", "evaluate"):
        pytest.importorskip("lightning_fabric", reason="needs dlzoo[train]")
    assert getattr(dlzoo, name) is not None


def test_every_public_name_is_known_to_type_checkers() -> None:
    """The imports for types name the same homes as the table that loads the names."""
    imported = {
        alias.name: node.module
        for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlzoo.")
        for alias in node.names
    }
    assert imported == {**dlzoo._HOME_OF, "__version__": "dlzoo.version"}


def test_every_error_is_a_public_name() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert defined and defined <= set(dlzoo.__all__)
    for name in ("ProofError", "DifferenceError"):
        assert issubclass(getattr(dlzoo, name), errors.DlzooError)


def test_the_drawn_tree_of_errors_has_them_all() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w*Error\b", errors.__doc__ or ""))
    public = {name for name in dlzoo.__all__ if name.endswith("Error")}
    assert drawn == public


def used_names(text: str) -> set[str]:
    """The ``NAME`` of every ``dlzoo.NAME`` and ``from dlzoo import NAME`` of a page.

    >>> sorted(used_names("from dlzoo import diff, verify; dlzoo.train(recipe)"))
    ['diff', 'train', 'verify']
    """
    imported = (a or b for a, b in _IMPORTED.findall(text))
    return {*_USED.findall(text)} | {
        name.split(" as ")[0].strip()
        for names in imported
        for name in names.split(",")
        if name.strip()
    }


def is_module(name: str) -> bool:
    try:
        import_module(f"dlzoo.{name}")
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_documentation_uses_public_names(page: Path) -> None:
    missing = {
        name
        for name in used_names(page.read_text(encoding="utf-8"))
        if name not in dlzoo.__all__ and not is_module(name)
    }
    assert not missing, f"{page.name} uses {sorted(missing)}, which dlzoo does not export"


def test_names_are_found_in_a_page() -> None:
    page = "`dlzoo.nothing(1)`, dlzoo.silu.default and `from dlzoo import (verify,\n  none)`"
    assert used_names(page) == {"nothing", "verify", "none"}


def test_export_model_shows_what_the_export_takes() -> None:
    """``help(dlzoo.export_model)`` lists every parameter, its default and what it means."""
    shown = inspect.signature(export_model).parameters
    taken = inspect.signature(export_and_report).parameters
    assert {n: (p.kind, p.default) for n, p in shown.items()} == {
        n: (p.kind, p.default) for n, p in taken.items()
    }
    for name in shown:
        assert f"{name}: " in (export_model.__doc__ or ""), name


# -- no parameters in hiding ---------------------------------------------------------------------

#: Functions whose further arguments belong to a model's builder, which has its own signature.
PASS_TO_A_BUILDER = {
    "zoo.catalog.build_model",
    "zoo.summary.summarize_card",
    "zoo.weights.build_with_weights",
}
#: Functions with the signature that PyTorch or ONNX Script calls them with.
CALLED_BY_TORCH = {
    "export.convert.attention_rank.attention_of_any_rank": "a __torch_function__ by another name",
    "export.lowering.own_domain.call_contrib": "an operator's attributes",
    "export.lowering.own_domain.call_function": "an operator's attributes",
}
#: Fields of a dataclass, or arguments of the base class, that are repeated nowhere else.
#: zoo/registry.py and the data sets state them once.
FIELDS = {
    "zoo.data.array_dataset.ArrayDataset.__init__",
    "zoo.data.file_dataset.FileDataset.__init__",
    "zoo.registry.PublishedWeights.from_torchvision",
    "zoo.registry.register_model",
}


def public_functions(
    body: list[ast.stmt], prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The public functions of a module and the public methods of its public classes."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{prefix}.{node.name}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_constructor = node.name in ("__init__", "__call__")
            if is_constructor or not node.name.startswith("_"):
                yield f"{prefix}.{node.name}", node


def with_hidden_parameters() -> set[str]:
    """Every public function of the library that takes ``**anything``."""
    files = [ROOT / "api.py", ROOT / "testing.py"]
    for folder in ("zoo", "export", "runtime"):
        files += sorted((ROOT / folder).rglob("*.py"))
    return {
        name
        for file in files
        for name, function in public_functions(
            ast.parse(file.read_text(encoding="utf-8")).body,
            ".".join(file.relative_to(ROOT).with_suffix("").parts),
        )
        if function.args.kwarg is not None
    }


def test_public_functions_show_every_parameter() -> None:
    allowed = PASS_TO_A_BUILDER | set(CALLED_BY_TORCH) | FIELDS
    hidden = with_hidden_parameters() - allowed
    assert not hidden, f"**kwargs in {sorted(hidden)}: list the parameters"


def test_a_hidden_parameter_is_found() -> None:
    assert with_hidden_parameters() >= PASS_TO_A_BUILDER


# -- messages name arguments ---------------------------------------------------------------------

#: The rooms whose messages name arguments; the command line writes them as its own options.
ROOMS = (
    "api.py",
    "testing.py",
    "export/diff",
    "export/evaluate",
    "export/plan",
    "export/prove",
    "runtime/bundle",
    "runtime/diff",
    "runtime/onnx_reader",
    "runtime/proof",
    "runtime/remote",
    "runtime/session",
)
_OPTION = re.compile(r"(?<![\w-])--[a-z]|(?<![\w-])-o\b")
_COMMAND = re.compile(r"(dlzoo [a-z]+|pip \w+|python -m) .*")


def messages_of(tree: ast.AST) -> Iterator[str]:
    """The text of every error that is raised, with whole commands for a shell left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            parts = (
                part.value
                for part in ast.walk(node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )
            yield _COMMAND.sub("", " ".join(parts))


@pytest.mark.parametrize("room", ROOMS)
def test_messages_name_arguments_not_options(room: str) -> None:
    place = ROOT / room
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files, room
    wrong = [
        f"{file.relative_to(ROOT)}: {message}"
        for file in files
        for message in messages_of(ast.parse(file.read_text(encoding="utf-8")))
        if _OPTION.search(message)
    ]
    assert not wrong, wrong


def test_an_option_in_a_message_is_found() -> None:
    tree = ast.parse(
        'raise ValueError(f"{x} is taken. Give --force, or run: dlzoo export -o y")'
    )
    (message,) = messages_of(tree)
    assert _OPTION.search(message)
    assert not _OPTION.search(_COMMAND.sub("", "Run: dlzoo export -o y"))
