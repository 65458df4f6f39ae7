"""Architectures, one paper a file."""
