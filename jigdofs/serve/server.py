"""Run the application on hypercorn, from the binding of a port to the end.

Invariant of this file: it ends when it is told to, also while clients take nothing.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from jigdofs.errors import InputError, UsageError
from jigdofs.serve.application import Application

if TYPE_CHECKING:
    from hypercorn.config import Config

_log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
"""How long a connection may be without a request, or take to send the header of one."""
GRACE_S = 2.0
"""How long answers may go on when the end is wanted."""
STALLED_MS = 60_000
"""How long a client may take nothing."""
_HEADER_BYTES = 32 << 10
_BACKLOG = 256


def check_installed() -> None:
    """Raise `InputError` if there is nothing to serve with."""
    if importlib.util.find_spec("hypercorn") is None:
        raise InputError("serving needs hypercorn: pip install 'jigdofs[serve]'")


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


async def serve(application: Application, bound: socket.socket, end: Callable[[], Awaitable[None]]) -> None:
    """Serve until `end` returns; then let answers go on for a moment, and break what is left."""
    from hypercorn.trio import serve as run

    ending = trio.Event()
    async with trio.open_nursery() as nursery:

        async def wait_for_end() -> None:
            await end()
            ending.set()

        async def break_what_is_left() -> None:
            await ending.wait()
            while True:  # also what is accepted at the last moment
                await trio.sleep(GRACE_S)
                _break_connections(bound)

        nursery.start_soon(wait_for_end)
        nursery.start_soon(break_what_is_left)
        await run(application, _config(bound), shutdown_trigger=ending.wait, mode="asgi")  # type: ignore[arg-type]  # our messages are wider than its typed dicts
        nursery.cancel_scope.cancel()


def _config(bound: socket.socket) -> Config:
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{os.dup(bound.fileno())}"]
    config.backlog = _BACKLOG  # hypercorn listens again, with 100 if not told
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = 1_000_000  # an installer asks for thousands of packages
    config.graceful_timeout = GRACE_S
    config.h11_max_incomplete_size = _HEADER_BYTES
    config.include_server_header = False
    config.errorlog = logging.getLogger(f"{__name__}.hypercorn")
    if _log.isEnabledFor(logging.INFO):
        config.accesslog = config.errorlog
        config.access_log_format = '%(h)s "%(R)s" %(s)s %(b)s'
    return config


def _break_connections(bound: socket.socket) -> None:
    """Shut down every connection that was accepted here.

    hypercorn shields what it sends, so nothing else ends an answer whose client takes nothing; and it keeps
    its connections to itself, so they are found by their address.
    """
    ours = bound.getsockname()[1]
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError, ValueError):
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:") or int(name) == bound.fileno():
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.getsockname()[1] == ours:
                    one.getpeername()  # a listener has none
                    one.shutdown(socket.SHUT_RDWR)
