"""One server process: sockets, signals, event loop."""
