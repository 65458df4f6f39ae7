"""Losses and penalties, one family per file."""
