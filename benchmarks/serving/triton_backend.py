"""A minimal stand-in for Triton's onnxruntime backend, copied beside Triton's own backends.

The same session as everywhere else in this benchmark; a batch runs together.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of one ONNX model with one input and one output."""

    def initialize(self, args):
        """Open the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["SESSION_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def execute(self, requests):
        """Run all requests of a batch together, as the real backend does."""
        parts = [
            pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
            for request in requests
        ]
        x = np.concatenate(parts) if len(parts) > 1 else parts[0]
        (y,) = self._session.run([self._output], {self._input: x})
        ends = np.cumsum([len(part) for part in parts])
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(self._output, y[end - len(part) : end])]
            )
            for part, end in zip(parts, ends, strict=True)
        ]
