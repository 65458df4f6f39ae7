"""Add to pytest the fixture ``onnx_provider`` and the marker ``onnx_providers``.

Loaded by pytest wherever dlzoo is installed, so it imports nothing until a test asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_FIXTURE, _MARKER = "onnx_provider", "onnx_providers"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(*names): run the test with {_FIXTURE} on these ONNX Runtime providers, such as "
        "cpu and cuda; those that this machine lacks are skipped with the reason.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``onnx_provider`` once for every provider.

    Without the marker: on all that this machine has.
    """
    if _FIXTURE not in metafunc.fixturenames:
        return
    import pytest

    from dlzoo.runtime.session.providers import get_provider
    from dlzoo.runtime.session.working_providers import working_providers

    working = working_providers()
    marker = metafunc.definition.get_closest_marker(_MARKER)
    wanted = [get_provider(name).name for name in marker.args] if marker else []
    metafunc.parametrize(
        _FIXTURE,
        [
            pytest.param(name)
            if name in working
            else pytest.param(
                name,
                marks=pytest.mark.skip(
                    reason=f"provider {name} does not run here: see dlzoo doctor"
                ),
            )
            for name in wanted or working
        ],
    )
