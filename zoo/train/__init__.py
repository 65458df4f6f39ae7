"""Train a network: recipes, the loop, optimizers, losses, scores, and the run's folder."""
