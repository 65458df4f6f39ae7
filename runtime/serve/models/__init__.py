"""The models of a server: repository, versions, batching, statistics."""
