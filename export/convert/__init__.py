"""Turn a module into an ONNX graph: trace, translate, keep the sizes that stay open."""
