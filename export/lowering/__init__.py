"""How an operator is spelled in ONNX, for an opset and a target: one operator a file."""
