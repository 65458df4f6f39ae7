"""A training run's folder: checkpoints, history, resume."""
