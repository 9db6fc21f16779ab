"""Keep a loopback port for one server across its restarts."""

import socket

LOOPBACK = "127.0.0.1"


def reserve_port() -> socket.socket:
    """Bind a free loopback port without listening, and return the socket that keeps it.

    Nobody else is given the port while the socket lives and connecting to it is refused; a server that sets
    SO_REUSEADDR can still bind and listen on it, as often as it likes.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((LOOPBACK, 0))
    return keeper


def port_of(keeper: socket.socket) -> int:
    """Return the number of a reserved port."""
    return int(keeper.getsockname()[1])
