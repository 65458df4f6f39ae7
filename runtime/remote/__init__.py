"""The proof over the wire: a bundle against a server of the Open Inference Protocol."""
