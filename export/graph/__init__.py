"""The ONNX graph in memory, and the writer that puts it on disk."""
