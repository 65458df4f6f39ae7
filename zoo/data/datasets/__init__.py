"""Data sets, one file format per file."""
