"""Open an ONNX Runtime ``InferenceSession``, and say in one line why it does not open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlzoo.errors import ArgumentError, BundleError, ProviderError
from dlzoo.runtime.session.custom_ops import NativeLibrary, register_native_library
from dlzoo.runtime.session.installation import load_onnxruntime
from dlzoo.runtime.session.ort_error import one_line_reason
from dlzoo.runtime.session.providers import require_provider
from dlzoo.runtime.session.run_settings import OPTIMIZATIONS, RunSettings

#: ONNX Runtime's log severities.
INFORMING, SILENT = 1, 4


def open_inference_session(
    path: Path,
    settings: RunSettings,
    *,
    library: NativeLibrary | None,
    data: bytes | None = None,
    weights: Mapping[str, Any] | None = None,
    log_severity: int = SILENT,
) -> Any:
    """An ``InferenceSession`` that records which provider each node was given to.

    Args:
        path: the model's file.
        settings: how it is run.
        library: kernels for operators of domain ``dlzoo``.
        data: the model itself, where it is not what ``path`` holds.
        weights: ``OrtValue`` of initializers that ``data`` leaves out.
        log_severity: of ONNX Runtime's messages on stderr.

    Raises:
        ArgumentError: no provider has that name, or a configuration entry is refused.
        BundleError: the model is not understood.
        NativeLibraryError: ONNX Runtime does not take the library.
        ProviderError: the provider is missing or cannot be used.
    """
    provider = require_provider(settings.provider)
    provider_options = dict(provider.options)
    if settings.allow_tf32 and "use_tf32" in provider_options:
        provider_options["use_tf32"] = "1"
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, OPTIMIZATIONS[settings.optimization]
    )
    options.log_severity_level = log_severity
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for key, value in settings.session_config.items():
        try:
            options.add_session_config_entry(key, value)
        except Exception as error:
            raise ArgumentError(
                f"`session_config` got {key[:60]!r}: {value[:60]!r}, which ONNX Runtime refuses: "
                f"{one_line_reason(error)}. Correct it."
            ) from None
    if settings.num_threads is not None:
        options.intra_op_num_threads = settings.num_threads
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    if library is not None:
        register_native_library(options, library)
    try:
        # Without enable_fallback=0 a failure, here or in a later run, moves the session to the
        # CPU and prints so on stdout.
        return onnxruntime.InferenceSession(
            str(path) if data is None else data,
            options,
            providers=[(provider.ort_name, provider_options)],
            disabled_optimizers=list(settings.disabled_passes) or None,
            enable_fallback=0,
        )
    except Exception as error:
        if provider.name != "cpu" and type(error).__name__ in ("RuntimeError", "EPFail"):
            raise ProviderError(
                f"Provider {provider.name!r} cannot be used: {one_line_reason(error)}. "
                'Run "dlzoo doctor" to see what is missing.'
            ) from None
        raise BundleError(
            f"{path} is not understood by ONNX Runtime {onnxruntime.__version__}: "
            f"{one_line_reason(error)}. Export it again, or update onnxruntime."
        ) from None
