"""Files that inference servers want of a bundle: one server a module, each with write and check."""
