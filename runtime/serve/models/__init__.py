"""The models that a server holds: repository, versions, batching, statistics."""
