"""Write and check the files that inference servers need for a bundle, one module per server."""
