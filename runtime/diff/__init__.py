"""Find the first wrong value of a graph, and what is to blame for it."""
