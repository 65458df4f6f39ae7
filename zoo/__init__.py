"""Define and train: cards, layers, architectures, weights, data."""
