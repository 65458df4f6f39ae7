"""Random changes of training images, one family per file."""
