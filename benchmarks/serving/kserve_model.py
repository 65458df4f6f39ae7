"""The smallest server of KServe's SDK for one ONNX graph; it runs in KServe's environment."""

import argparse

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server


class OnnxModel(Model):
    """One session."""

    def __init__(self, name: str, path: str, num_threads: int) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._output = self._session.get_outputs()[0].name
        self.ready = True

    def predict(self, payload: InferRequest, *_: object) -> InferResponse:
        """Answer one request."""
        feed = {each.name: each.as_numpy() for each in payload.inputs}
        (y,) = self._session.run([self._output], feed)
        output = InferOutput(self._output, list(y.shape), "FP32")
        is_binary = payload.from_grpc or payload.use_binary_outputs
        output.set_data_from_numpy(y, binary_data=is_binary)
        return InferResponse(payload.id or "", self.name, [output])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments, _ = parser.parse_known_args()
    ModelServer().start([OnnxModel(arguments.model_name, arguments.model, arguments.threads)])
