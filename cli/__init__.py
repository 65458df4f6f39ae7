"""The command line, one command a file.

The modules of the library are imported inside the functions that use them, so that ``dlzoo
--help`` and a mistyped option need no torch, onnx or onnxruntime (``benchmarks/start_up.py``).
"""
