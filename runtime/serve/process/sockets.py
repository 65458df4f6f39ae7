"""Ports that are bound, or refused in one line."""

from __future__ import annotations

import socket

from dlzoo.errors import ArgumentError
from dlzoo.runtime.serve.process.address import Address

BACKLOG = 1024


def bound_socket(option: str, address: Address, *, is_shared: bool = False) -> socket.socket:
    """A socket that has an address, and does not listen yet.

    Args:
        option: which option gave the address.
        address: port 0 is any free one.
        is_shared: other sockets that say so, too, may have the same address.

    Raises:
        ArgumentError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise cannot_listen(option, address, error) from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(place)
    except OSError as error:
        bound.close()
        raise cannot_listen(option, address, error) from None
    return bound


def cannot_listen(option: str, address: Address, error: OSError) -> ArgumentError:
    """The one line for an address that cannot be had."""
    reason = (error.strerror or str(error)).lower()
    return ArgumentError(
        f"The server cannot listen on {address} ({option}): {reason}. "
        "Stop what listens there, or give another address; port 0 takes any free one."
    )
