"""Where a network can come from, one kind a file: the zoo, your own code, a library, a program, a run."""
