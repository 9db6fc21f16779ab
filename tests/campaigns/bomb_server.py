"""A server on loopback that leads on for ever: bodies without an end, includes made as they are asked for."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path

from tests.kit.ports import LOOPBACK

_LINE = b"# and so on, and so on, and so on, and so on, and so on, and so on\n" * 1000


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: a body in pieces, chunked if its length is not known; or a redirect."""

    body: Callable[[], Iterator[bytes]] = lambda: iter(())
    location: str = ""
    length: int | None = None


@dataclass(slots=True)
class HostileServer:
    """What it has, and what was asked: path, Authorization and Cookie of each request."""

    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    def url(self, path: str, credentials: str = "") -> str:
        """Return the URL of a path."""
        return f"{self.scheme}://{credentials}{LOOPBACK}:{self.port}{path}"

    def text(self, path: str, text: str | bytes) -> str:
        """Have a small page; return its URL."""
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
        self.pages[path] = Page(lambda: iter([data]), length=len(data))
        return self.url(path)

    def page(self, path: str) -> Page | None:
        """Return what a path stands for, made up where it goes on for ever."""
        kind, _, number = path.strip("/").removesuffix(".jigdo").partition("/")
        if kind == "endless":
            return Page(lambda: repeat(_LINE))
        if kind == "two" and number.isdigit():
            text = "".join(f"[Include /two/{int(number) * 2 + more}.jigdo]\n" for more in (0, 1))
            return Page(lambda: iter([text.encode()]), length=len(text))
        if kind == "deep" and number.isdigit():
            text = f"[Include /deep/{int(number) + 1}.jigdo]\n"
            return Page(lambda: iter([text.encode()]), length=len(text))
        if kind == "round":
            return Page(location=f"/round/{int(number or 0) + 1}.jigdo")
        return self.pages.get(path)


@contextmanager
def hostile_server(directory: Path | None = None) -> Iterator[HostileServer]:
    """Serve until the end; over TLS with a throw-away CA if a directory is given (`ca.pem` in it)."""
    state = HostileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            headers = self.headers
            state.asked.append((self.path, headers.get("Authorization", ""), headers.get("Cookie", "")))
            page = state.page(self.path)
            with suppress(OSError):
                self._send(page, body=body)

        def _send(self, page: Page | None, *, body: bool) -> None:
            if page is None:
                self.send_error(404)
                return
            self.send_response(302 if page.location else 200)
            self.send_header("Set-Cookie", "who=you")
            if page.location:
                self.send_header("Location", page.location)
            chunked = page.length is None and not page.location
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(page.length or 0))
            self.end_headers()
            for piece in page.body() if body else ():
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    if directory is not None:
        state.scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*_certificate(directory))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="hostile-server")
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _certificate(directory: Path) -> tuple[str, str]:
    """Make a certificate of 127.0.0.1 that is its own CA; return the paths of it and of its key."""
    certificate, key = directory / "ca.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return str(certificate), str(key)
