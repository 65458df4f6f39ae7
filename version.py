"""The version of dlzoo."""

__version__ = "0.1.0"
