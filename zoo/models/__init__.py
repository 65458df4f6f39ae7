"""Architectures, one paper per file."""
