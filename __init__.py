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
    from dlzoo.errors import ArgumentError as ArgumentError
    from dlzoo.errors import BundleError as BundleError
    from dlzoo.errors import BundleExistsError as BundleExistsError
    from dlzoo.errors import CheckpointError as CheckpointError
    from dlzoo.errors import CheckpointMismatchError as CheckpointMismatchError
    from dlzoo.errors import DataError as DataError
    from dlzoo.errors import DeploymentError as DeploymentError
    from dlzoo.errors import DisagreementError as DisagreementError
    from dlzoo.errors import DlzooError as DlzooError
    from dlzoo.errors import DownloadError as DownloadError
    from dlzoo.errors import DynamicAxisError as DynamicAxisError
    from dlzoo.errors import ExportError as ExportError
    from dlzoo.errors import ImageError as ImageError
    from dlzoo.errors import InstallationError as InstallationError
    from dlzoo.errors import InterruptedRunError as InterruptedRunError
    from dlzoo.errors import NativeLibraryError as NativeLibraryError
    from dlzoo.errors import NonFiniteWeightsError as NonFiniteWeightsError
    from dlzoo.errors import OpsetError as OpsetError
    from dlzoo.errors import ProviderError as ProviderError
    from dlzoo.errors import RecipeError as RecipeError
    from dlzoo.errors import ServerError as ServerError
    from dlzoo.errors import StorageError as StorageError
    from dlzoo.errors import TrainingError as TrainingError
    from dlzoo.errors import UnknownModelError as UnknownModelError
    from dlzoo.errors import UnsafeCheckpointError as UnsafeCheckpointError
    from dlzoo.errors import WeightsError as WeightsError
    from dlzoo.export.diff.diff import diff as diff
    from dlzoo.export.diff.diff import first_wrong_layer as first_wrong_layer
    from dlzoo.export.evaluate.evaluation import evaluate as evaluate
    from dlzoo.export.lowering.registration import register_lowering as register_lowering
    from dlzoo.export.plan.options import ExportOptions as ExportOptions
    from dlzoo.runtime.bundle.bundle import Bundle as Bundle
    from dlzoo.runtime.diff.diff_report import DifferenceError as DifferenceError
    from dlzoo.runtime.diff.diff_report import DiffReport as DiffReport
    from dlzoo.runtime.proof.limits import Limits as Limits
    from dlzoo.runtime.proof.progress import Progress as Progress
    from dlzoo.runtime.proof.recorded import Tolerance as Tolerance
    from dlzoo.runtime.proof.report import ProofError as ProofError
    from dlzoo.runtime.proof.report import Report as Report
    from dlzoo.runtime.session.session import Session as Session
    from dlzoo.runtime.session.session import open_session as open_session
    from dlzoo.zoo.catalog import build_model as build_model
    from dlzoo.zoo.catalog import list_models as list_models
    from dlzoo.zoo.registry import register_model as register_model
    from dlzoo.zoo.sources.input_spec import InputSpec as InputSpec
    from dlzoo.zoo.training import train as train

_HOME_OF = {
    "ArgumentError": "dlzoo.errors",
    "Bundle": "dlzoo.runtime.bundle.bundle",
    "BundleError": "dlzoo.errors",
    "BundleExistsError": "dlzoo.errors",
    "CheckpointError": "dlzoo.errors",
    "CheckpointMismatchError": "dlzoo.errors",
    "DataError": "dlzoo.errors",
    "DeploymentError": "dlzoo.errors",
    "DiffReport": "dlzoo.runtime.diff.diff_report",
    "DifferenceError": "dlzoo.runtime.diff.diff_report",
    "DisagreementError": "dlzoo.errors",
    "DlzooError": "dlzoo.errors",
    "DownloadError": "dlzoo.errors",
    "DynamicAxisError": "dlzoo.errors",
    "ExportError": "dlzoo.errors",
    "ExportOptions": "dlzoo.export.plan.options",
    "ImageError": "dlzoo.errors",
    "InputSpec": "dlzoo.zoo.sources.input_spec",
    "InstallationError": "dlzoo.errors",
    "InterruptedRunError": "dlzoo.errors",
    "Limits": "dlzoo.runtime.proof.limits",
    "NativeLibraryError": "dlzoo.errors",
    "NonFiniteWeightsError": "dlzoo.errors",
    "OpsetError": "dlzoo.errors",
    "Progress": "dlzoo.runtime.proof.progress",
    "ProofError": "dlzoo.runtime.proof.report",
    "ProviderError": "dlzoo.errors",
    "RecipeError": "dlzoo.errors",
    "Report": "dlzoo.runtime.proof.report",
    "ServerError": "dlzoo.errors",
    "Session": "dlzoo.runtime.session.session",
    "StorageError": "dlzoo.errors",
    "Tolerance": "dlzoo.runtime.proof.recorded",
    "TrainingError": "dlzoo.errors",
    "UnknownModelError": "dlzoo.errors",
    "UnsafeCheckpointError": "dlzoo.errors",
    "WeightsError": "dlzoo.errors",
    "build_model": "dlzoo.zoo.catalog",
    "diff": "dlzoo.export.diff.diff",
    "evaluate": "dlzoo.export.evaluate.evaluation",
    "export_model": "dlzoo.api",
    "first_wrong_layer": "dlzoo.export.diff.diff",
    "list_models": "dlzoo.zoo.catalog",
    "open_session": "dlzoo.runtime.session.session",
    "register_lowering": "dlzoo.export.lowering.registration",
    "register_model": "dlzoo.zoo.registry",
    "train": "dlzoo.zoo.training",
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
