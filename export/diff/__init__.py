"""Compare a network in PyTorch with a graph, value by value."""
