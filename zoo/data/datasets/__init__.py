"""Images: what they are read from, by format, one a file."""
