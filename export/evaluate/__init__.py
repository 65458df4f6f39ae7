"""Measure a network on images, in PyTorch and in ONNX Runtime."""
