"""Open ONNX Runtime sessions that run where they were told to."""
