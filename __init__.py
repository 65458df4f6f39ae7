"""dlzoo: define, train, export, optimize, validate and serve vision networks.

Importing this package loads nothing heavy; each name below is loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dlzoo.version import __version__

if TYPE_CHECKING:
    from dlzoo.api import export_model as export_model
    from dlzoo.api import verify as verify
    from dlzoo.export.diff.diff import diff as diff
    from dlzoo.export.diff.diff import first_wrong_layer as first_wrong_layer
    from dlzoo.export.lowering.registration import register_lowering as register_lowering
    from dlzoo.runtime.bundle.bundle import Bundle as Bundle
    from dlzoo.runtime.proof.report import Report as Report
    from dlzoo.runtime.session.session import open_session as open_session
    from dlzoo.zoo.catalog import build_model as build_model
    from dlzoo.zoo.catalog import list_models as list_models

_HOME_OF = {
    "Bundle": "dlzoo.runtime.bundle.bundle",
    "Report": "dlzoo.runtime.proof.report",
    "build_model": "dlzoo.zoo.catalog",
    "diff": "dlzoo.export.diff.diff",
    "export_model": "dlzoo.api",
    "first_wrong_layer": "dlzoo.export.diff.diff",
    "list_models": "dlzoo.zoo.catalog",
    "open_session": "dlzoo.runtime.session.session",
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
