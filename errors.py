"""Every error that dlzoo raises for a user to see, as one tree.

    DlzooError                       one line: what, got, expected, fix; exit status 2
    ├── ArgumentError                a value that an argument does not take
    ├── UnknownModelError            no card and no builder of that name
    ├── WeightsError                 weights that cannot be used
    │   ├── CheckpointMismatchError  missing, unexpected or mis-shaped keys
    │   ├── UnsafeCheckpointError    a file that needs pickle to run code
    │   ├── DownloadError            no network, a wrong hash
    │   └── NonFiniteWeightsError    NaN or Inf in a parameter or buffer
    ├── ExportError                  what was asked cannot be delivered
    │   ├── OpsetError               no model in the opset asked for
    │   └── DynamicAxisError         an axis that does not hold at other sizes
    ├── RecipeError                  a recipe with a wrong key or value
    ├── TrainingError                a run that cannot go on; exit status 1
    │   └── CheckpointError          a run's file that is missing, damaged or of another version
    ├── InterruptedRunError          a run that Ctrl-C stopped; exit status 130
    ├── BundleError                  a folder or file that is not a sound bundle or model
    │   └── BundleExistsError        the target is not empty
    ├── StorageError                 unwritable or full disk
    ├── ImageError                   an image that cannot be read
    ├── DataError                    a dataset that is missing, damaged or contradicts itself
    ├── ProviderError                a provider that is missing or did not take the work
    ├── NativeLibraryError           a library of kernels that cannot be built or loaded
    ├── InstallationError            a missing or clashing package
    ├── ServerError                  a server that cannot be reached, refuses, or speaks another protocol
    ├── DeploymentError              files for a server that do not fit the model; exit status 1
    ├── DisagreementError            ONNX Runtime does not see PyTorch's classes; exit status 1
    ├── ProofError                   the verdict is fail or vacuous; exit status 1
    │                                (in runtime/proof/report.py, beside the Report it carries)
    └── DifferenceError              two models differ; exit status 1
                                     (in runtime/diff/diff_report.py, beside its DiffReport)

All of them are names of the package, too: ``dlzoo.ProofError``.

A message names the subject, got against expected, and the fix. It speaks of Python's arguments, in
backticks (`` `image_size` ``); the command line prints them as its options (``--image-size``).
"""

from __future__ import annotations


class DlzooError(Exception):
    """Something that a user can fix; the message is one line."""

    exit_code = 2


class ArgumentError(DlzooError, ValueError):
    """A value that an argument does not take."""


class UnknownModelError(DlzooError, LookupError):
    """No card and no builder of that name."""


class WeightsError(DlzooError):
    """Weights that cannot be used."""


class CheckpointMismatchError(WeightsError):
    """A checkpoint with missing, unexpected or mis-shaped keys."""


class UnsafeCheckpointError(WeightsError):
    """A checkpoint that can only be read by running the code in it."""


class DownloadError(WeightsError):
    """Weights that could not be fetched, or came with a wrong hash."""


class NonFiniteWeightsError(WeightsError):
    """NaN or Inf in a parameter or a buffer."""


class ExportError(DlzooError):
    """What was asked of an export cannot be delivered."""


class OpsetError(ExportError):
    """The model cannot be delivered in the opset asked for."""


class DynamicAxisError(ExportError):
    """An axis was to be dynamic, and does not hold at other sizes."""


class RecipeError(DlzooError):
    """A recipe with a wrong key or value."""


class TrainingError(DlzooError):
    """A training run that cannot go on: a loss that is NaN or Inf, or memory that is too small."""

    exit_code = 1


class CheckpointError(TrainingError):
    """A run's file that is missing, damaged, or of another version."""

    exit_code = 2


class InterruptedRunError(DlzooError):
    """A training run that Ctrl-C stopped: it can go on."""

    exit_code = 130


class BundleError(DlzooError):
    """A folder or a file that is not a sound bundle or model."""


class BundleExistsError(BundleError):
    """The target of a write exists and is not empty."""


class StorageError(DlzooError):
    """A path that cannot be written, or a full disk."""


class ImageError(DlzooError):
    """A file that cannot be read as an image."""


class DataError(DlzooError):
    """A dataset that is missing, damaged, or contradicts itself."""


class ProviderError(DlzooError):
    """An execution provider that is missing, or did not take the work."""


class NativeLibraryError(DlzooError):
    """A library of native kernels that cannot be built or loaded."""


class InstallationError(DlzooError):
    """A package that is missing, or two that clash."""


class ServerError(DlzooError):
    """An inference server that cannot be reached, refuses a request, or speaks another protocol."""


class DeploymentError(DlzooError):
    """Files for a server that do not fit the model or the server's own schema."""

    exit_code = 1


class DisagreementError(DlzooError):
    """ONNX Runtime puts images into other classes than PyTorch, or there is no model for it to run."""

    exit_code = 1


def describe_exception(error: BaseException, max_characters: int = 300) -> str:
    """Describe in one line what others' code raised: ``KeyError: 'missing'``, without a full stop.

    >>> describe_exception(KeyError("missing"))
    "KeyError: 'missing'"
    """
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = (line.strip() for line in message.splitlines())
    text = next((line for line in lines if line), "no message")[:max_characters]
    return f"{type(error).__name__}: {text.rstrip('.')}"
