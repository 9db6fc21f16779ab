"""Serve files over HTTP/1.1 on loopback, and misbehave where a test says so.

    with FaultyServer({"/a.deb": data}) as server:
        server.script("/a.deb", Status(503), Truncate(10))   # the first two requests; good service after them
        server.always("/pool/*", Reset())                    # every request without a script left

What a client has seen is on record already: request, status and body bytes are noted before they are sent.
"""

import os
import socket
import socketserver
import struct
import sys
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.faults import WELL, Chunked, Close, Drip, Fault, Reset, Stall, Truncate
from tests.kit.http_answers import Answer, Content, Request, answer_to
from tests.kit.ports import LOOPBACK, port_of, reserve_port

__all__ = ["FaultyServer", "Request"]
_DATE = 1_700_000_000
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time


class FaultyServer:
    """Serve `files`, a dict by decoded URL path or a directory, from a thread; the dict may change."""

    def __init__(self, files: dict[str, bytes] | Path | None = None) -> None:
        self.files: dict[str, bytes] | Path = {} if files is None else files
        self.connections = 0
        self.peak_in_flight = 0
        self._changed = threading.Condition()  # guards everything below
        self._requests: list[Request] = []
        self._scripts: dict[str, deque[Fault]] = {}
        self._rules: list[tuple[str, Fault]] = []
        self._in_flight = self._stalled = self._releases = 0
        self._stopping = False
        self._errors: list[BaseException] = []
        self._keeper = reserve_port()
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._keeper.close()
        if self._errors and error is None:
            raise AssertionError("the faulty server itself is at fault") from self._errors[0]

    def start(self) -> None:
        """Listen, on the same port as ever."""
        assert self._listener is None, "started already"
        self._stopping = False
        self._listener = _Listener(self, port_of(self._keeper))
        self._thread = threading.Thread(
            target=self._listener.serve_forever, args=(0.01,), name="faulty-server"
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection, as a server does that dies; idempotent."""
        if self._listener is None or self._thread is None:
            return
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._listener.shutdown()
        self._thread.join()
        self._listener.hang_up()
        self._listener.server_close()
        self._listener = None

    def url(self, path: str = "/") -> str:
        """Return the URL of a decoded path, properly escaped."""
        return f"http://{LOOPBACK}:{port_of(self._keeper)}{urllib.parse.quote(os.fsencode(path))}"

    def script(self, path: str, *faults: Fault) -> None:
        """Meet the next requests of this path with these faults, one each; WELL stands for good service."""
        with self._changed:
            self._scripts.setdefault(path, deque()).extend(faults)

    def always(self, path_or_glob: str, fault: Fault) -> None:
        """Meet every request of these paths with the fault, where no script is left; the latest rule wins."""
        with self._changed:
            self._rules.insert(0, (path_or_glob, fault))

    def behave(self) -> None:
        """Forget all scripts and rules."""
        with self._changed:
            self._scripts.clear()
            self._rules.clear()

    def release(self) -> None:
        """Let the answers go on that stall now; later ones stall again."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    @property
    def requests(self) -> list[Request]:
        """The requests so far in order of arrival."""
        with self._changed:
            return list(self._requests)

    def paths(self) -> list[str]:
        """Return the path of every request in order."""
        return [request.path for request in self.requests]

    def count(self, path: str) -> int:
        """Return how often a path was asked for."""
        return self.paths().count(path)

    def forget_requests(self) -> None:
        """Empty the record; only where no request is under way."""
        with self._changed:
            assert self._in_flight == 0, "a request is under way"
            self._requests.clear()

    def wait_until(self, condition: Callable[[Self], object], timeout_s: float = 10) -> None:
        """Wait until the condition holds, looked at after every change of the record; or fail."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(condition(self)), timeout_s):
                raise AssertionError(f"the condition did not come true; asked for so far: {self.paths()}")

    def wait_stalled(self, count: int = 1) -> None:
        """Wait until that many answers stall."""
        self.wait_until(lambda server: server._stalled >= count)

    # what the connections call

    def _begin(self, request: Request) -> tuple[int, Fault]:
        with self._changed:
            self._requests.append(request)
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
            self._changed.notify_all()
            script = self._scripts.get(request.path)
            if script:
                return len(self._requests) - 1, script.popleft()
            path = request.path
            rules = (fault for glob, fault in self._rules if glob == path or fnmatchcase(path, glob))
            return len(self._requests) - 1, next(rules, WELL)

    def _note(self, index: int, status: int, body_bytes: int) -> None:
        with self._changed:
            self._requests[index] = replace(self._requests[index], status=status, body_bytes=body_bytes)
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def _stall(self) -> None:
        with self._changed:
            releases = self._releases
            self._stalled += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopping or self._releases > releases)
            self._stalled -= 1
            self._abort_when_stopping()

    def _pace(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)
            self._abort_when_stopping()

    def _abort_when_stopping(self) -> None:
        if self._stopping:
            raise ConnectionAbortedError

    def _find(self, path: str) -> Content | None:
        if isinstance(self.files, dict):
            return Content(self.files[path], _DATE) if path in self.files else None
        file = self.files / path.lstrip("/")
        if ".." in file.parts or not file.is_file():
            return None
        return Content(file.read_bytes(), file.stat().st_mtime)


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, owner: FaultyServer, port: int) -> None:
        self.owner = owner
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()
        super().__init__((LOOPBACK, port), _Connection)

    def process_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        with self.lock:
            self.open.add(request)
        self.owner.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        with self.lock:
            self.open.discard(request)
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _RESET_ON_CLOSE:
            request.close()  # no FIN may precede the RST
        else:
            super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):  # clients may go whenever they like
            self.owner._errors.append(error)

    def hang_up(self) -> None:
        with self.lock:
            for connection in self.open:
                with suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        owner = self.server.owner
        path = os.fsdecode(urllib.parse.unquote_to_bytes(self.path.partition("?")[0]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, self.path, headers.get("range"), headers)
        self.index, fault = owner._begin(request)
        try:
            self._serve(request, fault)
        finally:
            owner._end()

    do_HEAD = do_GET  # noqa: N815

    def _serve(self, request: Request, fault: Fault) -> None:
        match fault:
            case Close():
                self.close_connection = True
                return
            case Reset(after=None):
                self._reset()
                return
            case Stall(after=None):
                self.server.owner._stall()
        answer = answer_to(request, fault, self.server.owner._find(request.path))
        self.status, self.sent = answer.status, 0
        self._note(0)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.chunked = isinstance(fault, Chunked)
        if self.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif answer.status != 304:
            self.send_header("Content-Length", str(len(answer.body) + answer.padding))
        self.end_headers()
        if request.method != "HEAD" and answer.status != 304:
            self._send_body(answer, fault)

    def _send_body(self, answer: Answer, fault: Fault) -> None:
        match fault:
            case Truncate(after):
                self._send(answer.body[:after])
                self.close_connection = True
                return
            case Reset(after=int(after)):
                self._send(answer.body[:after])
                self._reset()
                return
            case Stall(after=int(after)):
                self._send(answer.body[:after])
                self.server.owner._stall()
                pieces = answer.pieces(after)
            case Drip(bytes_per_second):
                pieces = answer.pieces(size=max(1, bytes_per_second // 20))
            case _:
                pieces = answer.pieces()
        for piece in pieces:
            self._send(piece)
            if isinstance(fault, Drip):
                self.server.owner._pace(len(piece) / fault.bytes_per_second)
        if self.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, piece: bytes) -> None:
        if not piece:
            return
        self._note(len(piece))
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)

    def _note(self, more: int) -> None:
        self.sent += more
        self.server.owner._note(self.index, self.status, self.sent)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.close_connection = True
