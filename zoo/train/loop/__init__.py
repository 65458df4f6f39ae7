"""The training loop and the steps it takes."""
