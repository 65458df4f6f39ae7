"""Write and check the files that inference servers need beside a bundle: one server a module."""
