"""Where a network can come from, one kind a file."""
