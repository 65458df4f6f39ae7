"""Random weights: published schemes, and a scaling that keeps every layer visible in the outputs."""
