"""From image files to tensors, and from scores to classes."""
