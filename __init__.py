"""dlzoo: define, train, export, optimize, validate and serve vision networks.

Importing this package loads nothing heavy; each name below is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dlzoo.api import export_model as export_model
    from dlzoo.api import verify as verify
    from dlzoo.comparison import diff as diff
    from dlzoo.comparison import first_wrong_layer as first_wrong_layer
    from dlzoo.export.bundle import Bundle as Bundle
    from dlzoo.export.lowering.registration import register_lowering as register_lowering
    from dlzoo.runtime.session import open_session as open_session
    from dlzoo.runtime.validate import Report as Report
    from dlzoo.zoo.registry import build_model as build_model
    from dlzoo.zoo.registry import list_models as list_models

_HOME_OF = {
    "Bundle": "dlzoo.export.bundle",
    "Report": "dlzoo.runtime.validate",
    "build_model": "dlzoo.zoo.registry",
    "diff": "dlzoo.comparison",
    "export_model": "dlzoo.api",
    "first_wrong_layer": "dlzoo.comparison",
    "list_models": "dlzoo.zoo.registry",
    "open_session": "dlzoo.runtime.session",
    "register_lowering": "dlzoo.export.lowering.registration",
    "verify": "dlzoo.api",
}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    """Load a public name from its module the first time it is used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dlzoo' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
