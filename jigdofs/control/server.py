"""Answer at the control socket of a mount.

A client sends one line, a JSON object whose `do` names what it wants, and is sent lines, each an object
whose `event` says what it is; the last is `end` or `error`. Whoever hangs up wants no more.

Invariants of this file:
* Only the user of the daemon and root are answered (SO_PEERCRED).
* Nothing a client does ends the daemon; a request is bounded in length and in the time it may take to come.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import logging
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from jigdofs.control import place
from jigdofs.errors import EXIT_UNAVAILABLE, JigdofsError, UsageError, leaf_of

_log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 << 10
_JUST_BEGUN_S = 60.0  # between binding and listening lies a moment
_REQUEST_S = 10.0
_SEND_S = 30.0  # a client that takes nothing for so long is gone
_CREDENTIALS = struct.Struct("3i")  # ucred(7): pid, uid, gid

Tell = Callable[[Mapping[str, Any]], Awaitable[None]]
Handler = Callable[[Mapping[str, Any], Tell], Awaitable[None]]
"""Do what a request asks for, telling events; `end` is told for it."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A descriptor that is handed over to whoever mounts for us.

    Attributes:
        descriptor: the open /dev/fuse.
        complete: tells whether nothing has to be fetched any more.
    """

    descriptor: int
    complete: Callable[[], bool]


class ControlSocket:
    """The socket of a mount: it can be asked as soon as this is made, and is answered once it is served.

    A mount without one works all the same, so trouble is only logged.

    Args:
        mountpoint: absolute, without links.
    """

    def __init__(self, mountpoint: str) -> None:
        self._bound: socket.socket | None = None
        try:
            self._bound, self._path = _bound(mountpoint)
            self._inode = self._path.lstat().st_ino
            _tidy(self._path.parent)
        except (JigdofsError, OSError) as error:
            _log.warning("no control socket: %s", error)

    async def serve(self, handlers: Mapping[str, Handler], parcel: Parcel | None = None) -> None:
        """Answer until cancelled, then remove the socket.

        Args:
            handlers: what can be asked for.
            parcel: what whoever asks for `hand-over` is given.
        """
        if self._bound is None:
            return
        try:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._bound))
            await trio.serve_listeners(_Server(handlers, parcel).answer, [listener])
        finally:
            self.close()

    def close(self) -> None:
        """Listen no longer, and leave nothing behind."""
        if self._bound is None:
            return
        self._bound.close()
        with contextlib.suppress(OSError):
            if self._path.lstat().st_ino == self._inode:  # not that of a daemon that came after us
                _remove(self._path)
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()  # the last one tidies up


def _bound(mountpoint: str) -> tuple[socket.socket, Path]:
    """Return a socket that listens, and where; raise `MountError` or `OSError`."""
    for last_try in (False, True):
        path = place.own_directory() / place.socket_name(mountpoint)
        _remove(path)  # of a daemon that was killed: a mount point has one daemon
        bound = socket.socket(socket.AF_UNIX)
        try:
            bound.bind(os.fspath(path))
            path.chmod(0o600)
            bound.listen(16)
        except OSError as error:
            bound.close()
            # a daemon that ended just now took the directory with it
            if last_try or not isinstance(error, FileNotFoundError):
                raise
        else:
            return bound, path
    raise AssertionError("the last try returns or raises")


def _tidy(directory: Path) -> None:
    """Remove the sockets of daemons that were killed: nobody listens there, and has not just begun to."""
    for path in directory.glob("*.sock"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
            old = time.time() - path.lstat().st_mtime > _JUST_BEGUN_S
            asking.setblocking(False)  # noqa: FBT003  its own name for it
            if old and asking.connect_ex(os.fspath(path)) == errno.ECONNREFUSED:
                _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


class _Server:
    """Answer requests.

    Args:
        handlers: what can be asked for.
        parcel: what can be handed over, or None.
    """

    def __init__(self, handlers: Mapping[str, Handler], parcel: Parcel | None = None) -> None:
        self._handlers = handlers
        self._parcel = parcel

    async def answer(self, stream: trio.SocketStream) -> None:
        """Answer one client; whatever goes wrong with it ends only this."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            async with stream:
                if _is_welcome(stream):
                    await self._converse(stream)

    async def _converse(self, stream: trio.SocketStream) -> None:
        async def tell(event: Mapping[str, Any]) -> None:
            with trio.move_on_after(_SEND_S) as limit:
                await stream.send_all(json.dumps(event).encode() + b"\n")
            if limit.cancelled_caught:
                raise trio.BrokenResourceError

        try:
            request = await _request(stream)
            if request["do"] == "hand-over" and self._parcel is not None:
                await _send(stream, self._parcel)
                return
            handler = self._handlers.get(request["do"])
            if handler is None:
                raise UsageError(f"this daemon cannot do `{request['do']}'; it may be of another version")
            await self._work(stream, handler, request, tell)
            await tell({"event": "end"})
        except Exception as error:  # noqa: BLE001  the daemon lives on, whatever became of one request
            leaf = leaf_of(error)
            if isinstance(leaf, trio.BrokenResourceError | trio.ClosedResourceError):
                return  # nobody listens any more
            if isinstance(leaf, JigdofsError):
                message, code = str(leaf), leaf.exit_code
            else:
                _log.exception("internal error in a request at the control socket")
                message, code = f"internal error: {leaf}", EXIT_UNAVAILABLE
            await tell({"event": "error", "message": message, "exit_code": code})

    @staticmethod
    async def _work(
        stream: trio.SocketStream, handler: Handler, request: Mapping[str, Any], tell: Tell
    ) -> None:
        """Do it, until it is done or the client hangs up."""
        async with trio.open_nursery() as nursery:

            async def until_hung_up() -> None:
                with contextlib.suppress(trio.BrokenResourceError):
                    while await stream.receive_some(4096):
                        pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_hung_up)
            await handler(request, tell)
            nursery.cancel_scope.cancel()


def _is_welcome(stream: trio.SocketStream) -> bool:
    data = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(data)
    return uid in (0, os.geteuid())


async def _send(stream: trio.SocketStream, parcel: Parcel) -> None:
    """Hand a descriptor over (unix(7)); a line of so few bytes goes at once or not at all."""
    line = json.dumps({"event": "hand-over", "complete": parcel.complete()}).encode() + b"\n"
    rights = array.array("i", [parcel.descriptor])
    await stream.socket.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


async def _request(stream: trio.SocketStream) -> Mapping[str, Any]:
    """Return what a client asks for; raise `UsageError` if that cannot be told."""
    data = b""
    with trio.move_on_after(_REQUEST_S):
        while b"\n" not in data and len(data) <= MAX_REQUEST_BYTES:
            more = await stream.receive_some(MAX_REQUEST_BYTES)
            if not more:
                break
            data += more
    try:
        request = json.loads(data.partition(b"\n")[0])
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("do"), str):
        raise UsageError("that is no request: a line of JSON with `do' in it")
    return request
