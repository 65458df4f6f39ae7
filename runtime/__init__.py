"""Validate and serve: ONNX Runtime and NumPy, never PyTorch."""
