"""Configurations of inference servers, one server a file."""
