"""Rewrite a graph for an older opset: one family of operators a file."""
