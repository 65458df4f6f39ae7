"""Decide what an export will do: network, inputs, open sizes, options."""
