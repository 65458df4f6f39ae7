"""The training loop and what happens within a step."""
