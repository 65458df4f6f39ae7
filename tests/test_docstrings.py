"""The examples in docstrings run."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import dlzoo

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(dlzoo.__path__, "dlzoo.")
    if module.name.split(".")[1] in ("zoo", "export", "runtime", "cli", "errors", "api")
)


@pytest.mark.usefixtures("lowerings_restored")
@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(
        import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert result.failed == 0
