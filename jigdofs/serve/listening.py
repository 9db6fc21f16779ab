"""Where to listen, and what is missing to serve there; all that can be told before images are loaded."""

from __future__ import annotations

import errno
import importlib.metadata
import importlib.util
import socket

from jigdofs.errors import InputError, UsageError

STALLED_MS = 60_000
"""How long a client may take nothing."""
_BACKLOG = 256
_LEAST = (0, 17)


def check_installed() -> None:
    """Raise `InputError` if there is nothing to serve with, or what Debian 12 has, which is too old."""
    if importlib.util.find_spec("hypercorn") is None:
        raise InputError(
            "serving needs hypercorn: pip install 'jigdofs[serve]', or apt install python3-hypercorn"
        )
    version = importlib.metadata.version("hypercorn")
    if tuple(int(number) for number in version.split(".")[:2]) < _LEAST:
        raise InputError(f"serving needs hypercorn 0.17, and this is {version}: pip install 'jigdofs[serve]'")


def listen(address: str) -> socket.socket:
    """Bind `ADDRESS:PORT`, `[ADDRESS]:PORT`, or `:PORT` for all addresses; port 0 takes a free one.

    Raises:
        UsageError: that is no such text, or nothing can listen there.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--listen {address}: write ADDRESS:PORT, for instance 127.0.0.1:8080 or [::1]:8080")
    try:
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, place = found[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--listen {address}: {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # connections inherit it: a client that is gone, or takes nothing, is not waited for any longer
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
        bound.bind(place)
        bound.listen(_BACKLOG)
        bound.settimeout(0)
    except OSError as error:
        bound.close()
        hint = "; ports below 1024 are root's" if error.errno == errno.EACCES else ""
        raise UsageError(f"--listen {address}: {error.strerror}{hint}") from error
    return bound


def url_of(bound: socket.socket) -> str:
    """Return the URL of what listens there, with a slash at its end."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
