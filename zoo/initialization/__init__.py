"""Random weights: published schemes, and a scaling that lets every layer affect the outputs."""
