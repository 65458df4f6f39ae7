"""Native kernels for domain ``dlzoo``: C++ sources, and how they are built on this machine."""
