"""Find the providers that run a model on this machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from dlzoo.runtime.session.installation import (
    load_onnxruntime,
)
from dlzoo.runtime.session.ort_error import one_line_reason
from dlzoo.runtime.session.providers import PROVIDERS, short_name

#: One node, Relu on float32 [1]: ir_version 8, opset 13. Opening it is the only sure sign that a
#: provider's libraries load and its driver is new enough.
_PROBE_MODEL = bytes.fromhex(
    "08083a370a0c0a0178120179220452656c75120570726f62655a0f0a0178120a0a08080112040a02"
    "0801620f0a0179120a0a08080112040a02080142040a00100d"
)


def working_providers() -> list[str]:
    """Names of the providers that run a model on this machine, best first.

    Raises:
        InstallationError: no ONNX Runtime is installed, or two are.
    """
    onnxruntime = load_onnxruntime()
    return [
        short_name(ort_name)
        for ort_name in onnxruntime.get_available_providers()
        if short_name(ort_name) in PROVIDERS and not why_provider_fails(onnxruntime, ort_name)
    ]


def why_provider_fails(onnxruntime: Any, ort_name: str) -> str:
    """The reason why a model of one node does not run on this provider, or an empty text."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            _PROBE_MODEL, options, providers=[ort_name], enable_fallback=0
        )
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:
        return one_line_reason(error)
    return "" if ort_name in session.get_providers() else "its libraries did not load"
