"""Export: a module becomes a graph, a graph becomes a bundle."""
