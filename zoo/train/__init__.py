"""Training: initialization."""
