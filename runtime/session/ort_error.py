"""ONNX Runtime's message of a failure, as one line."""

from __future__ import annotations

import re


def one_line_reason(error: BaseException) -> str:
    """ONNX Runtime's message, without error codes, C++ sources and line breaks."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    # "/onnxruntime_src/…/model.cc:256 onnxruntime::Model::Model(…) Unsupported model IR version"
    text = re.sub(r"\S*onnxruntime\S*\.(?:cc|h|cu|cuh):\d+ \S.*?\) ", "", text)
    return text[:300].rstrip(" .")
