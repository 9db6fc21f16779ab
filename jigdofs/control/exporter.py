"""Give metrics away: to who asks at an address or a socket, or in a file for node_exporter.

Invariants of this file:
* What cannot work is said before anything is mounted.
* A client, whatever it does, costs a few kilobytes for a few seconds, and there are few at a time.
* The file is always whole, and is gone after the end.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import os
import re
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from jigdofs.errors import InputError, UsageError

if TYPE_CHECKING:
    from jigdofs.control.state import State

_log = logging.getLogger(__name__)

WRITE_EVERY_S = 15.0
MAX_CLIENTS = 16
MAX_REQUEST_BYTES = 8 << 10
_BACKLOG = 128  # beyond it a connection to a unix socket fails at once
_REQUEST_S = 5.0
_SEND_S = 10.0
_DRAINED_BYTES = 1 << 20  # of a request that is too long
_TCP = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/]*)):(?P<port>\d{1,5})")
_SHORT = re.compile(rb"\r?\n\r?\n")


def exporter(target: str) -> Listening | Written:
    """Return what gives metrics away, ready to do it.

    Args:
        target: `HOST:PORT`, `unix:PATH`, or the absolute path of a file that ends in `.prom`.

    Raises:
        UsageError: it is none of these.
        InputError: that place cannot be used, or a library is missing.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise InputError(
            "--metrics needs prometheus_client: pip install 'jigdofs[metrics]', or apt install"
            " python3-prometheus-client"
        )
    if target.startswith("unix:"):
        return Listening(target, _unix_socket(target.removeprefix("unix:")))
    if target.startswith("/"):
        return Written(target)
    return Listening(target, _tcp_socket(target))


def check_target(target: str) -> None:
    """Raise `UsageError` for what is none of the targets that `exporter` takes."""
    if not target.startswith(("unix:", "/")):
        _host_and_port(target)


def _host_and_port(target: str) -> re.Match[str]:
    parts = _TCP.fullmatch(target)
    if parts is None or int(parts["port"]) > 65535:
        raise UsageError(f"--metrics {target}: is neither HOST:PORT, nor unix:PATH, nor the path of a file")
    return parts


def _tcp_socket(target: str) -> socket.socket:
    parts = _host_and_port(target)
    try:
        host = parts["v6"] or parts["host"] or None
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, int(parts["port"]), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(_BACKLOG)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise InputError(f"--metrics {target}: cannot listen there: {error.strerror or error}") from error
    return bound


def _unix_socket(path: str) -> socket.socket:
    """Return a socket that listens there; one that a killed daemon left is replaced."""
    if not path.startswith("/"):
        raise UsageError(f"--metrics unix:{path}: the path must be absolute")
    bound = socket.socket(socket.AF_UNIX)
    try:
        if stat.S_ISSOCK(_mode(path)):
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(1)
                if asking.connect_ex(path) == errno.ECONNREFUSED:
                    os.unlink(path)
        bound.bind(path)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise InputError(f"--metrics unix:{path}: cannot listen there: {error.strerror or error}") from error
    return bound


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


class Listening:
    """Answer `GET /metrics`.

    Args:
        target: as it was typed.
        bound: listens already.
    """

    def __init__(self, target: str, bound: socket.socket) -> None:
        self._path = target.removeprefix("unix:") if target.startswith("unix:") else None
        self._inode = os.lstat(self._path).st_ino if self._path is not None else 0
        self._bound = bound
        self._clients = 0

    async def serve(self, state: State) -> None:
        """Answer until cancelled."""
        self._state = state
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._bound))
        try:
            await trio.serve_listeners(self._answer, [listener])
        finally:
            self.close()

    def close(self) -> None:
        """Listen no longer, and leave nothing behind."""
        self._bound.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if os.lstat(self._path).st_ino == self._inode:
                    os.unlink(self._path)

    async def _answer(self, stream: trio.SocketStream) -> None:
        self._clients += 1
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with stream:
                    await self._converse(stream)
        finally:
            self._clients -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        if self._clients > MAX_CLIENTS:
            _turn_away(stream)
            return
        head = await _head(stream)
        if head is None:
            await _send(stream, "400 Bad Request", b"that is no request\n")
            return
        method, path = head
        if method not in (b"GET", b"HEAD"):
            await _send(stream, "405 Method Not Allowed", b"GET it\n")
        elif path.partition(b"?")[0] != b"/metrics":
            await _send(stream, "404 Not Found", b"there is /metrics only\n")
        else:
            from jigdofs.control.metrics import CONTENT_TYPE, exposition

            try:
                body = exposition(self._state)
            except Exception:  # noqa: BLE001  one answer fails, nothing else
                _log.exception("internal error in the metrics")
                await _send(stream, "500 Internal Server Error", b"internal error\n")
            else:
                await _send(stream, "200 OK", body, CONTENT_TYPE, head=method == b"HEAD")


async def _head(stream: trio.SocketStream) -> tuple[bytes, bytes] | None:
    """Return method and path of a request; None if it is none, too long or too slow."""
    data = b""
    with trio.move_on_after(_REQUEST_S):
        while not _SHORT.search(data):
            more = await stream.receive_some(MAX_REQUEST_BYTES)
            data += more
            if not more or len(data) > MAX_REQUEST_BYTES:
                return None
        words = data.split(b"\n", 1)[0].split()
        if len(words) == 3 and words[2].startswith(b"HTTP/1."):
            return words[0], words[1]
    return None


def _answer(status: str, body: bytes, kind: str = "text/plain", *, head: bool = False) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else body)


def _turn_away(stream: trio.SocketStream) -> None:
    """Say that there are too many, without waiting for anything: each has a descriptor that reads need."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(stream.socket.fileno())) as raw:
        raw.send(_answer("503 Service Unavailable", b"too many clients\n"), socket.MSG_DONTWAIT)
        raw.shutdown(socket.SHUT_WR)
        raw.recv(
            MAX_REQUEST_BYTES, socket.MSG_DONTWAIT
        )  # what is not read breaks the connection, and the answer with it


async def _send(
    stream: trio.SocketStream, status: str, body: bytes, kind: str = "text/plain", *, head: bool = False
) -> None:
    with trio.move_on_after(_SEND_S):
        await stream.send_all(_answer(status, body, kind, head=head))
        await stream.send_eof()
        # what was sent and not read would break the connection, and the answer with it
        with contextlib.suppress(trio.BrokenResourceError):
            left = _DRAINED_BYTES
            while left > 0 and (more := await stream.receive_some(left)):
                left -= len(more)


class Written:
    """Write metrics to a file now and then.

    Args:
        target: its absolute path.

    Raises:
        UsageError: node_exporter would not read it.
        InputError: it cannot be written.
    """

    def __init__(self, target: str) -> None:
        if not target.endswith(".prom"):
            raise UsageError(f"--metrics {target}: the name of a file must end in .prom, or nobody reads it")
        self._path = Path(target)
        self._failing = False
        try:
            self._write(b"")
        except OSError as error:
            raise InputError(f"--metrics {target}: cannot be written: {error.strerror or error}") from error

    async def serve(self, state: State) -> None:
        """Write until cancelled; then the file is removed."""
        from jigdofs.control.metrics import exposition

        try:
            while True:
                await trio.to_thread.run_sync(self._try_to_write, exposition(state))
                await trio.sleep(WRITE_EVERY_S)
        finally:
            self.close()

    def close(self) -> None:
        """Remove the file: nobody is to read on what holds no more."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _try_to_write(self, text: bytes) -> None:
        try:
            self._write(text)
        except OSError as error:
            if not self._failing:
                _log.warning("--metrics %s: cannot be written: %s", self._path, error.strerror or error)
            self._failing = True
        else:
            self._failing = False

    def _write(self, text: bytes) -> None:
        fd, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with open(fd, "wb") as file:
                os.fchmod(fd, 0o644)  # node_exporter is another user
                file.write(text)
            os.replace(name, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
