"""Export a network, prove the result, and write the bundle."""
