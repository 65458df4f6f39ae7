"""Recipes that ship with dlzoo, as TOML."""
