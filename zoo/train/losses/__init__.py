"""What training makes small, one family a file."""
