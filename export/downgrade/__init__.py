"""Older spellings of single ONNX operators: what opsets below the exporter's own need."""
