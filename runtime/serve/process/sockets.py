"""Bind ports, with a one-line error if that fails."""

from __future__ import annotations

import socket

from dlzoo.errors import ArgumentError
from dlzoo.runtime.serve.process.address import Address

BACKLOG = 1024


def bound_socket(argument: str, address: Address, *, is_shared: bool = False) -> socket.socket:
    """Bind a socket to an address; it does not listen yet.

    Args:
        argument: the name of the argument that holds the address, for messages.
        address: the address; port 0 stands for any free one.
        is_shared: whether other sockets that are also shared may have the same address.

    Raises:
        ArgumentError: the address is unavailable.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise cannot_listen(argument, address, error) from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(place)
    except OSError as error:
        bound.close()
        raise cannot_listen(argument, address, error) from None
    return bound


def cannot_listen(argument: str, address: Address, error: OSError) -> ArgumentError:
    """Make the error for an unavailable address."""
    reason = (error.strerror or str(error)).lower()
    return ArgumentError(
        f"The server cannot listen on {address} (`{argument}`): {reason}. "
        "Stop the program that listens there, or give another address; port 0 takes any free one."
    )
