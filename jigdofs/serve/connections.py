"""Accept connections, and have hypercorn speak HTTP/1.1 on each. The only file that imports hypercorn.

Invariants of this file:
* Whatever one connection does ends that connection at most. hypercorn's own loop ends with the first error in
  its protocol code, and a malformed header of an upgrade to HTTP/2 was enough for one.
* HTTP/1.1 is spoken and nothing else: with HTTP/2, hypercorn 0.18 takes a whole file into memory for a client
  that grants no window, and a stream that is not read keeps its place for ever.
* At the end every connection is broken that is left: hypercorn shields what it sends, so nothing else ends an
  answer whose client takes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from jigdofs.errors import leaf_of

_log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
"""How long a connection may be without a request, or take to send the header of one."""
GRACE_S = 2.0
"""How long answers may go on when the end is wanted."""
_HEADER_BYTES = 32 << 10


class _Connection(TCPServer):
    """A connection that stays with HTTP/1.1, whatever its client would go on with."""

    @property
    def protocol(self) -> ProtocolWrapper:
        """What speaks on it."""
        return self._protocol

    @protocol.setter
    def protocol(self, wrapper: ProtocolWrapper) -> None:
        # where it would switch to HTTP/2; requests to do so may be passed over (RFC 9110 7.8)
        wrapper.protocol._check_protocol = _stay  # type: ignore[union-attr, method-assign]  # noqa: SLF001  it has no setting
        self._protocol = wrapper


async def _stay(_request: Any) -> None:
    """Pass over what else a client could speak."""


async def serve_connections(
    application: Any, bound: socket.socket, end: Callable[[], Awaitable[None]]
) -> None:
    """Serve until `end` returns; then let answers go on for a moment, and break what is left.

    Args:
        application: of ASGI.
        bound: listens.
        end: returns when the end is wanted.
    """
    config = _config()
    app = wrap_app(application, config.wsgi_max_body_size, "asgi")
    context = WorkerContext(None)
    streams: set[trio.SocketStream] = set()
    last_gone = trio.Event()

    async def speak(stream: trio.SocketStream) -> None:
        streams.add(stream)
        try:
            await _Connection(app, config, context, ConnectionState({}), stream).run()  # type: ignore[arg-type]  # TLS is for a proxy in front
        except Exception as error:  # noqa: BLE001  it ends this connection alone
            _log.info("a connection was given up: %r", leaf_of(error))
        finally:
            streams.discard(stream)
            if context.terminated.is_set() and not streams:
                last_gone.set()

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(
                partial(trio.serve_listeners, speak, [listener], handler_nursery=connections)
            )
            await end()
            accepting.cancel_scope.cancel()
        await context.terminated.set()
        if streams:
            with trio.move_on_after(GRACE_S):
                await last_gone.wait()
        connections.cancel_scope.cancel()
        for stream in streams:
            with contextlib.suppress(OSError):  # its client was faster
                stream.socket.shutdown(socket.SHUT_RDWR)


def _config() -> Config:
    config = Config()
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = 1_000_000  # an installer asks for thousands of packages
    config.h11_max_incomplete_size = _HEADER_BYTES
    config.include_server_header = False
    config.errorlog = _log
    if _log.isEnabledFor(logging.INFO):
        config.accesslog = _log
        config.access_log_format = '%(h)s "%(R)s" %(s)s %(b)s'
    return config
