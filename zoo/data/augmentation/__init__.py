"""Random changes of training images, one family a file."""
