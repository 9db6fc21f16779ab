"""Whatever a server does, HttpFetcher gives exact bytes or raises the right FetchError, in bounded time."""

import dataclasses
import email.utils
import http.server
import random
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from jigdofs.config import FetchOptions
from jigdofs.errors import FetchError, MirrorTrouble, NotThere, WrongContent
from jigdofs.fetch.fetcher import Answer, MemoryReceiver, Request, SchemeFetcher
from jigdofs.fetch.file import FileFetcher
from jigdofs.fetch.http import HttpFetcher
from tests.kit.faults import (
    WELL,
    Changed,
    Chunked,
    Close,
    Drip,
    Empty,
    Fault,
    Gzip,
    Html,
    IgnoreRange,
    Redirect,
    Reset,
    Stall,
    Status,
    TooLong,
    Truncate,
    WrongBytes,
    WrongContentRange,
)
from tests.kit.faulty_server import FaultyServer
from tests.kit.requirements import tool

PATH = "/pool/a b%41#?\u00e9.deb"
DATA = random.Random(1).randbytes(200_000)
INVERTED = bytes(255 - byte for byte in DATA)
CHANGED = bytes(byte ^ 1 for byte in DATA)
FAST = FetchOptions(connect_timeout_s=2, stall_timeout_s=0.3, min_speed_bytes_per_s=2000, max_redirects=3)
TOO_LONG_S = 5.0
"""Far above what any fault may cost with these options, so a slow machine fails no test."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server(faulty_server: FaultyServer) -> FaultyServer:
    faulty_server.files = {PATH: DATA}
    return faulty_server


@asynccontextmanager
async def fetching(options: FetchOptions = FAST) -> AsyncIterator[HttpFetcher]:
    fetcher = HttpFetcher(options)
    try:
        with trio.fail_after(TOO_LONG_S):
            yield fetcher
    finally:
        await fetcher.close()


async def fetched(request: Request, options: FetchOptions = FAST) -> MemoryReceiver:
    receiver = MemoryReceiver()
    async with fetching(options) as fetcher:
        await fetcher.fetch(request, receiver)
    return receiver


Outcome = bytes | type[FetchError]
WHOLE: list[tuple[Fault, Outcome]] = [
    (WELL, DATA),
    (Status(404), NotThere),
    (Status(410), NotThere),
    (Status(403), NotThere),
    (Status(401), NotThere),
    (Status(451), NotThere),
    (Status(429), MirrorTrouble),
    (Status(500), MirrorTrouble),
    (Status(503), MirrorTrouble),
    (Close(), MirrorTrouble),
    (Reset(), MirrorTrouble),
    (Reset(70_000), MirrorTrouble),
    (Truncate(0), MirrorTrouble),
    (Truncate(70_000), MirrorTrouble),
    (Stall(), MirrorTrouble),
    (Stall(70_000), MirrorTrouble),
    (Drip(400), MirrorTrouble),
    (Html(), WrongContent),
    (WrongBytes(), INVERTED),
    (Empty(), WrongContent),
    (TooLong(), WrongContent),
    (TooLong(1 << 40), WrongContent),
    (IgnoreRange(), DATA),
    (WrongContentRange(), DATA),
    (Gzip(), WrongContent),
    (Chunked(), DATA),
    (Redirect("/none"), NotThere),
    (Changed(), CHANGED),
]


def test_table_is_complete() -> None:
    """Every fault that the kit knows stands in the table."""
    kinds: list[type[Fault]] = [Fault, *Fault.__subclasses__()]
    assert {type(fault).__name__ for fault, _ in WHOLE} == {kind.__name__ for kind in kinds}


@pytest.mark.parametrize(("fault", "outcome"), WHOLE, ids=lambda value: str(value)[:24])
async def test_whole_file(server: FaultyServer, fault: Fault, outcome: Outcome) -> None:
    """A whole file of known length arrives exactly or fails with the right error; what came is a prefix."""
    server.script(PATH, fault)
    receiver = MemoryReceiver()
    async with fetching() as fetcher:
        request = Request(server.url(PATH), length=len(DATA))
        if isinstance(outcome, bytes):
            await fetcher.fetch(request, receiver)
            assert bytes(receiver.data) == outcome
        else:
            with pytest.raises(FetchError) as caught:
                await fetcher.fetch(request, receiver)
            assert type(caught.value) is outcome
            assert DATA.startswith(receiver.data)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (WELL, (1000, DATA[1000:])),
        (IgnoreRange(), (0, DATA)),
        (Chunked(), (1000, DATA[1000:])),
        (WrongContentRange(), WrongContent),
        (WrongContentRange(-1000), WrongContent),
        (Gzip(), WrongContent),
        (Html(), WrongContent),
        (Empty(), WrongContent),
        (TooLong(), WrongContent),
        (Status(416), WrongContent),
        (Truncate(1000), MirrorTrouble),
        (Status(404), NotThere),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_resume(
    server: FaultyServer, fault: Fault, outcome: tuple[int, bytes] | type[FetchError]
) -> None:
    """The rest of a file is asked for with Range, and the answer says honestly where it begins."""
    server.script(PATH, fault)
    request = Request(server.url(PATH), offset=1000, length=len(DATA))
    if isinstance(outcome, tuple):
        receiver = await fetched(request)
        assert (receiver.answer.offset, bytes(receiver.data)) == outcome
    else:
        with pytest.raises(outcome):
            await fetched(request)
    assert server.requests[0].range == "bytes=1000-"


async def test_resume_beyond_the_end(server: FaultyServer) -> None:
    """A file shorter than what we have is wrong content, whether its length was known or not."""
    for length in (None, len(DATA) + 5):
        with pytest.raises(WrongContent):
            await fetched(Request(server.url(PATH), offset=len(DATA) + 1, length=length))


async def test_partial_answer_unasked(server: FaultyServer) -> None:
    """A 206 to a request for everything is refused: nobody asked for a part."""
    text = b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 2\r\n\r\nab"
    async with raw_server([text]) as url:
        with pytest.raises(WrongContent):
            await fetched(Request(url))


async def test_gzip_is_named(server: FaultyServer) -> None:
    """An encoding is refused for what it is, and identity is what we ask for."""
    server.script(PATH, Gzip())
    with pytest.raises(WrongContent, match="gzip"):
        await fetched(Request(server.url(PATH)))
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("fault", [WELL, Chunked(), TooLong(1 << 40)], ids=str)
async def test_max_length(server: FaultyServer, fault: Fault) -> None:
    """A file of unknown length is given up at the limit, announced or not."""
    server.script(PATH, fault)
    receiver = MemoryReceiver()
    async with fetching() as fetcher:
        with pytest.raises(WrongContent):
            await fetcher.fetch(Request(server.url(PATH), max_length=100_000), receiver)
    assert len(receiver.data) <= 100_000


async def test_not_modified(server: FaultyServer) -> None:
    """The validators of an answer bring a 304 next time, by ETag and by date."""
    first = (await fetched(Request(server.url(PATH)))).answer
    assert first.etag
    assert first.last_modified
    assert not first.not_modified
    again = await fetched(Request(server.url(PATH), etag=first.etag))
    assert again.answer.not_modified
    assert not again.data
    await fetched(Request(server.url(PATH), last_modified=first.last_modified))
    assert server.requests[-1].headers["if-modified-since"] == first.last_modified


async def test_304_unasked(server: FaultyServer) -> None:
    """A 304 to a request without validators is no answer."""
    server.script(PATH, Status(304))
    with pytest.raises(MirrorTrouble):
        await fetched(Request(server.url(PATH)))


# in a redirect httpx puts the host in that was asked: a way to say it, if an odd one
HOSTLESS_URLS = ["http://", "http:///x", "http://user@:80/"]
HOSTILE_URLS = [
    *HOSTLESS_URLS,
    "http://[",
    "http://[::1",
    "http://127.0.0.1:x/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:65536/",
    "http://127.0.0.1:99999999999999999999/",
    "http://127.0.0.1\t/",
    "http://127.0.0.1 /",
    "http://\udc80/",
    "http://" + "a" * 70 + "/",
    "http://127.0.0.1:1/" + "a" * 70_000,
    "http://\u00ad/",
    "http://xn--/",
]


# -- asking without fetching -------------------------------------------------------------------------


async def asked(request: Request) -> Answer:
    async with fetching() as fetcher:
        return await fetcher.ask(request)


Told = int | None | type[FetchError]
ASKED: list[tuple[Fault, Told]] = [
    (WELL, len(DATA)),
    (Status(404), NotThere),
    (Status(429), MirrorTrouble),
    (Status(503), MirrorTrouble),
    (Status(304), MirrorTrouble),
    (Status(416), WrongContent),
    (Close(), MirrorTrouble),
    (Reset(), MirrorTrouble),
    (Stall(), MirrorTrouble),
    (Html(), WrongContent),
    (Empty(), WrongContent),
    (TooLong(), WrongContent),
    (TooLong(1 << 40), WrongContent),
    (Gzip(), WrongContent),
    (Chunked(), None),
    (Redirect("/none"), NotThere),
    (Redirect("file:///etc/passwd"), WrongContent),
    (Redirect("/loop"), MirrorTrouble),
]


@pytest.mark.parametrize("head", [True, False], ids=["HEAD", "first byte"])
@pytest.mark.parametrize(("fault", "told"), ASKED, ids=lambda value: str(value)[:24])
async def test_ask(server: FaultyServer, fault: Fault, told: Told, *, head: bool) -> None:
    """The length is told or the right error raised, by HEAD or, where that is refused, by the first byte."""
    server.always("/loop", Redirect("/loop"))
    server.script(PATH, *([] if head else [Status(405)]), fault)
    request = Request(server.url(PATH), length=len(DATA))
    if isinstance(told, type):
        with pytest.raises(told) as caught:
            await asked(request)
        assert type(caught.value) is told
    else:
        length = len(DATA) if isinstance(fault, Chunked) and not head else told  # Content-Range tells
        assert await asked(request) == dataclasses.replace(
            await asked(Request(server.url(PATH))), length=length
        )
    ask = [(each.method, each.range) for each in server.requests if each.path == PATH]
    assert ask[0] == ("HEAD", None)
    if not head:
        assert ask[1] == ("GET", "bytes=0-0")


async def test_ask_for_the_whole_length(server: FaultyServer) -> None:
    """Without an expectation the length is told as it is; a limit holds."""
    for faults in ([], [Status(501)]):
        server.script(PATH, *faults)
        assert (await asked(Request(server.url(PATH)))).length == len(DATA)
        server.script(PATH, *faults)
        with pytest.raises(WrongContent, match="more than"):
            await asked(Request(server.url(PATH), max_length=10))


async def test_ask_for_an_empty_file(server: FaultyServer) -> None:
    """A file without a first byte has length 0."""
    server.files = {PATH: b""}
    for faults in ([], [Status(405)]):
        server.script(PATH, *faults)
        assert (await asked(Request(server.url(PATH), length=0))).length == 0
        server.script(PATH, *faults)
        with pytest.raises(WrongContent, match="0 bytes instead of 5"):
            await asked(Request(server.url(PATH), length=5))


@pytest.mark.parametrize(
    ("path", "fine"), [("/x.deb", False), ("/", False), ("/x.html", True), ("/X.HTM?a=b", True)]
)
async def test_ask_for_a_page_of_unknown_length(path: str, *, fine: bool) -> None:
    """A web page that tells no length is none of our parts, unless the part is a page itself."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: Text/HTML; charset=utf-8\r\nConnection: close\r\n\r\n"
    async with raw_server([answer]) as url:
        request = Request(url.removesuffix("/x") + path, length=7)
        if fine:
            assert (await asked(request)).length is None
        else:
            with pytest.raises(WrongContent, match="web page"):
                await asked(request)


async def test_ask_for_a_page_of_the_right_length(server: FaultyServer) -> None:
    """A web page as long as the part may be the part."""
    async with raw_server(
        [b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 7\r\n\r\n"]
    ) as url:
        assert (await asked(Request(url, length=7))).length == 7
        with pytest.raises(WrongContent, match="7 bytes instead of 8, a web page"):
            await asked(Request(url, length=8))


@pytest.mark.parametrize("text", ["", "bytes */*", "bytes 1-1/200000", "bytes 0-0/x", "lines 0-0/5"])
async def test_ask_answered_with_another_range(text: str) -> None:
    """A first byte that is none is wrong content."""
    replies = iter(
        [
            b"HTTP/1.1 405 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            f"HTTP/1.1 206 P\r\nContent-Range: {text}\r\nContent-Length: 1\r\n\r\nx".encode(),
        ]
    )

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(next(replies))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(WrongContent, match="another range"):
            await asked(Request(f"http://127.0.0.1:{port}/x", length=5))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=lambda url: ascii(url)[:30])
async def test_ask_for_a_hostile_url(url: str) -> None:
    """Only a FetchError leaves the fetcher here as well."""
    with pytest.raises(FetchError):
        await asked(Request(url))


async def test_ask_with_credentials(server: FaultyServer) -> None:
    """Credentials go to their own host only, and into no message."""
    with_secret = server.url(PATH).replace("http://", "http://joe:secret@")
    with FaultyServer({"/there": DATA}) as other:
        server.script(PATH, WELL, Redirect(other.url("/there")), Status(404))
        for _ in range(2):
            assert "secret" not in (await asked(Request(with_secret))).url
        with pytest.raises(NotThere) as caught:
            await asked(Request(with_secret))
        assert "secret" not in str(caught.value)
        assert "authorization" not in other.requests[0].headers
    assert all("authorization" in request.headers for request in server.requests)


async def test_ask_over_one_connection(server: FaultyServer) -> None:
    """Questions of any outcome leave the connection fit for the next one."""
    server.always("/404", Status(404))
    server.always("/302", Redirect(server.url(PATH)))
    async with fetching() as fetcher:
        for _ in range(5):
            await fetcher.ask(Request(server.url(PATH), length=len(DATA)))
            await fetcher.ask(Request(server.url("/302")))
            with pytest.raises(NotThere):
                await fetcher.ask(Request(server.url("/404")))
            server.script(PATH, Status(405))
            await fetcher.ask(Request(server.url(PATH)))
    assert server.connections == 1


# -- redirects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirect(server: FaultyServer, code: int) -> None:
    """A redirect is followed with the Range kept, and the answer tells where it came from."""
    server.files = {PATH: b"", "/there": DATA}
    server.script(PATH, Redirect("/there", code))
    receiver = await fetched(Request(server.url(PATH), offset=5, length=len(DATA)))
    assert (receiver.answer.url, bytes(receiver.data)) == (server.url("/there"), DATA[5:])
    assert server.requests[1].range == "bytes=5-"


async def test_redirects_as_many_as_allowed(server: FaultyServer) -> None:
    """Exactly `max_redirects` are followed."""
    server.files = {f"/{n}": DATA for n in range(5)}
    for n in range(3):
        server.always(f"/{n}", Redirect(f"/{n + 1}"))
    assert bytes((await fetched(Request(server.url("/0")))).data) == DATA
    server.always("/3", Redirect("/4"))
    with pytest.raises(MirrorTrouble, match="redirects"):
        await fetched(Request(server.url("/0")))


async def test_redirect_loop(server: FaultyServer) -> None:
    """A loop ends after `max_redirects`."""
    server.always(PATH, Redirect(server.url(PATH)))
    with pytest.raises(MirrorTrouble, match="redirects"):
        await fetched(Request(server.url(PATH)))
    assert server.count(PATH) == FAST.max_redirects + 1


@pytest.mark.parametrize("location", ["file:///etc/passwd", "file:/etc/passwd", "ftp://127.0.0.1/x"])
async def test_redirect_out_of_http(server: FaultyServer, location: str) -> None:
    """A redirect never leads out of HTTP, and no byte arrives."""
    server.script(PATH, Redirect(location))
    receiver = MemoryReceiver()
    async with fetching() as fetcher:
        with pytest.raises(WrongContent, match="redirects to"):
            await fetcher.fetch(Request(server.url(PATH)), receiver)
    assert not receiver.data


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=lambda url: ascii(url)[:30])
async def test_hostile_url(url: str) -> None:
    """Whatever stands in a .jigdo, only a FetchError leaves the fetcher."""
    with pytest.raises(FetchError):
        await fetched(Request(url))


@pytest.mark.parametrize(
    "location",
    [url for url in HOSTILE_URLS if url.isascii() and len(url) < 99 and url not in HOSTLESS_URLS]
    + ["", "//", "?", "gopher:x"],
    ids=ascii,
)
async def test_hostile_redirect(server: FaultyServer, location: str) -> None:
    """The same by way of a redirect."""
    server.always(PATH, Redirect(location))
    with pytest.raises(FetchError):
        await fetched(Request(server.url(PATH)))


async def test_credentials_stay_home(server: FaultyServer) -> None:
    """User name and password reach the host they were given for, but neither another one nor a message."""
    with_secret = server.url(PATH).replace("http://", "http://joe:secret@")
    with FaultyServer({"/there": DATA}) as other:
        server.script(PATH, WELL, Redirect(other.url("/there")), Status(404), Stall())
        assert bytes((await fetched(Request(with_secret))).data) == DATA
        assert server.requests[0].headers["authorization"].startswith("Basic ")
        answer = (await fetched(Request(with_secret))).answer
        assert "authorization" not in other.requests[0].headers
        assert "secret" not in answer.url
        for _ in range(2):
            with pytest.raises(FetchError) as caught:
                await fetched(Request(with_secret))
            assert "secret" not in str(caught.value)


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Serve `ok` over TLS, or a redirect to the URL that stands in the query; the certificate is known."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "30", "-subj", "/CN=kit", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = self.path.partition("?")[2]
            self.send_response(302 if target else 200)
            if target:
                self.send_header("Location", target)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that refuses the certificate

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Server(("127.0.0.1", 0), Handler) as listener:
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        yield lambda target: f"https://127.0.0.1:{listener.server_address[1]}/?{target}".rstrip("?")
        listener.shutdown()
        thread.join()


async def test_https(https: Callable[[str], str], server: FaultyServer) -> None:
    """TLS works, a redirect from it to plain HTTP is refused before anything is asked there."""
    assert bytes((await fetched(Request(https("")))).data) == b"ok"
    with pytest.raises(WrongContent, match="from https to http://"):
        await fetched(Request(https(server.url("/a"))))
    assert server.requests == []


async def test_unknown_certificate(https: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for is trouble with that mirror."""
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(MirrorTrouble):
        await fetched(Request(https("")))


# -- time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("999999", 3600.0),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("9" * 400, None),
        ("\u0667", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
    ],
)
async def test_retry_after(text: str, seconds: float | None) -> None:
    """Retry-After is read as seconds or as a date, and never more than an hour."""
    answer = f"HTTP/1.1 503 Busy\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n".encode()
    async with raw_server([answer]) as url:
        with pytest.raises(MirrorTrouble) as caught:
            await fetched(Request(url))
    assert caught.value.retry_after_s == seconds


async def test_retry_after_date(server: FaultyServer) -> None:
    """A date in the near future becomes the seconds until then."""
    server.script(PATH, Status(503, email.utils.formatdate(time.time() + 100, usegmt=True)))
    with pytest.raises(MirrorTrouble) as caught:
        await fetched(Request(server.url(PATH)))
    assert caught.value.retry_after_s is not None
    assert 90 < caught.value.retry_after_s <= 100


async def test_slow_but_not_too_slow(server: FaultyServer) -> None:
    """A transfer above the minimum speed is let go on over several windows."""
    server.files = {PATH: DATA[:20_000]}
    server.script(PATH, Drip(20_000))
    receiver = await fetched(Request(server.url(PATH), length=20_000))
    assert bytes(receiver.data) == DATA[:20_000]


async def test_no_minimum_speed(server: FaultyServer) -> None:
    """With a minimum speed of 0 only a stall ends a transfer."""
    server.files = {PATH: DATA[:500]}
    server.script(PATH, Drip(500))
    options = FetchOptions(stall_timeout_s=0.3, min_speed_bytes_per_s=0)
    assert bytes((await fetched(Request(server.url(PATH)), options)).data) == DATA[:500]


async def test_crawling_is_told(server: FaultyServer) -> None:
    """A transfer that crawls is given up for its speed."""
    server.script(PATH, Drip(400))
    with pytest.raises(MirrorTrouble, match="slower than 2000 bytes/s"):
        await fetched(Request(server.url(PATH)))


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def raw_server(pieces: Iterable[bytes], pause_s: float = 0.0) -> AbstractAsyncContextManager[str]:
    """Answer every connection with these pieces whatever it asks, then close it."""

    async def answer(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            for piece in pieces:
                await stream.send_all(piece)
                await trio.sleep(pause_s)
        except trio.BrokenResourceError:
            pass  # the client had enough

    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
            yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/x"
            nursery.cancel_scope.cancel()

    return serving()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 1000],
        endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
        [b"HTTP/1.1 404 Not Found\r\nContent-Length: 90000\r\n\r\n", *[b"x"] * 1000],
        [b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 90000\r\n\r\n", *[b"x"] * 1000],
    ],
    ids=["header", "informational", "404", "redirect"],
)
async def test_crawling_outside_the_body(pieces: Iterable[bytes]) -> None:
    """A header, or the body of an answer without a file, that drips for ever is given up as well."""
    async with raw_server(pieces, 0.05) as url:
        with pytest.raises(FetchError):
            await fetched(Request(url))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 1000,
        b"hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1\xff/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:60]),
)
async def test_answer_that_is_none(answer: bytes) -> None:
    """Bytes that are no HTTP, or contradict themselves, are a FetchError."""
    async with raw_server([answer]) as url:
        with pytest.raises(FetchError):
            await fetched(Request(url, length=3, max_length=3))


# -- connections -------------------------------------------------------------------------------------


async def test_one_connection_for_many_requests(server: FaultyServer) -> None:
    """Answers of any kind leave the connection fit for the next request."""
    server.always("/503", Status(503))
    server.always("/302", Redirect(server.url(PATH)))
    etag = (await fetched(Request(server.url(PATH)))).answer.etag
    before = server.connections
    async with fetching() as fetcher:
        for _ in range(5):
            for url in ("/404", "/503"):
                with pytest.raises(FetchError):
                    await fetcher.fetch(Request(server.url(url)), MemoryReceiver())
            for request in (Request(server.url("/302")), Request(server.url(PATH), etag=etag)):
                await fetcher.fetch(request, MemoryReceiver())
            with pytest.raises(WrongContent):
                await fetcher.fetch(Request(server.url(PATH), offset=1 << 20), MemoryReceiver())
            await fetcher.fetch(Request(server.url(PATH), offset=5), MemoryReceiver())
    assert server.connections == before + 1


async def test_as_many_connections_as_transfers(server: FaultyServer) -> None:
    """A hundred files by eight tasks, every fourth missing, take eight connections at most."""
    server.files = {f"/{n}": DATA[:n] for n in range(100) if n % 4}

    async def work(fetcher: HttpFetcher, mine: Iterable[int]) -> None:
        for n in mine:
            receiver = MemoryReceiver()
            if n % 4:
                await fetcher.fetch(Request(server.url(f"/{n}"), length=n), receiver)
                assert bytes(receiver.data) == DATA[:n]
            else:
                with pytest.raises(NotThere):
                    await fetcher.fetch(Request(server.url(f"/{n}"), length=n), receiver)

    async with fetching() as fetcher, trio.open_nursery() as nursery:
        for first in range(8):
            nursery.start_soon(work, fetcher, range(first, 100, 8))
    assert server.connections <= 8


async def test_server_comes_back(server: FaultyServer) -> None:
    """A server that is down is MirrorTrouble; kept-alive connections to its former life do no harm."""
    async with fetching() as fetcher:
        await fetcher.fetch(Request(server.url(PATH)), MemoryReceiver())
        server.stop()
        with pytest.raises(MirrorTrouble, match="cannot connect"):
            await fetcher.fetch(Request(server.url(PATH)), MemoryReceiver())
        server.start()
        receiver = MemoryReceiver()
        await fetcher.fetch(Request(server.url(PATH)), receiver)
        assert bytes(receiver.data) == DATA


async def test_receiver_that_fails(server: FaultyServer) -> None:
    """An error of the receiver's own passes through, and the fetcher goes on working."""

    class Full:
        async def begin(self, answer: Answer) -> None:
            pass

        async def receive(self, data: bytes) -> None:
            raise ArithmeticError

    async with fetching() as fetcher:
        with pytest.raises(ArithmeticError):
            await fetcher.fetch(Request(server.url(PATH)), Full())
        receiver = MemoryReceiver()
        await fetcher.fetch(Request(server.url(PATH)), receiver)
        assert bytes(receiver.data) == DATA


# -- the choice by scheme ----------------------------------------------------------------------------


async def test_schemes(server: FaultyServer, tmp_path: Path) -> None:
    """Paths and HTTP are fetched, HTTP by its name in any case; nothing else is."""
    (tmp_path / "a").write_bytes(DATA)
    async with fetching() as http_fetcher:
        fetcher = SchemeFetcher(http_fetcher, FileFetcher())
        for url in (server.url(PATH), str(tmp_path / "a"), server.url(PATH).replace("http", "HTTP")):
            receiver = MemoryReceiver()
            await fetcher.fetch(Request(url), receiver)
            assert bytes(receiver.data) == DATA
            assert (await fetcher.ask(Request(url))).length == len(DATA)
        for url in (f"file://{tmp_path}/a", "ftp://127.0.0.1/a", "a", "", "httpx://127.0.0.1/"):
            with pytest.raises(NotThere):
                await fetcher.fetch(Request(url), MemoryReceiver())
            with pytest.raises(NotThere):
                await fetcher.ask(Request(url))


async def test_whole_body_without_an_end() -> None:
    """All bytes are there but the end of the chunks never comes: that is enough."""
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    async with raw_server([body, *[b""] * 1000], 0.05) as url:
        receiver = await fetched(Request(url, length=5))
    assert bytes(receiver.data) == b"hello"


async def test_validator_that_cannot_be_sent_back() -> None:
    """An ETag that is no ASCII is forgotten: it could not be sent back."""
    answer = 'HTTP/1.1 200 OK\r\nETag: "\u00e9"\r\nContent-Length: 1\r\n\r\nx'.encode("latin-1")
    async with raw_server([answer]) as url:
        receiver = await fetched(Request(url))
    assert (bytes(receiver.data), receiver.answer.etag) == (b"x", "")


async def test_no_cookies() -> None:
    """A server's cookies are not kept, let alone sent back."""
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 1\r\n\r\nx"
    async with raw_server([answer]) as url, fetching() as fetcher:
        await fetcher.fetch(Request(url), MemoryReceiver())
        assert len(fetcher._client.cookies.jar) == 0


async def test_patience(server: FaultyServer) -> None:
    """A transfer that would take too long at its speed is given up, where there is something better."""
    server.always(PATH, Drip(2000))
    options = dataclasses.replace(FAST, min_speed_bytes_per_s=1)
    with pytest.raises(MirrorTrouble, match="too slow"):
        await fetched(Request(server.url(PATH), patience_s=0.1), options)


@pytest.mark.parametrize("fault", [Stall(), Stall(100), Drip(1)], ids=str)
async def test_hasty_request(server: FaultyServer, fault: Fault) -> None:
    """Who has others to ask does not wait as long as a stall may last."""
    server.always(PATH, fault)
    options = dataclasses.replace(FAST, stall_timeout_s=20, connect_timeout_s=20)
    begin = time.monotonic()
    with pytest.raises(MirrorTrouble):
        await fetched(Request(server.url(PATH), silence_s=0.2), options)
    assert time.monotonic() - begin < 10


async def test_hasty_request_and_a_header_that_drips() -> None:
    """The whole header counts, with those of all redirects before it."""
    options = dataclasses.replace(FAST, stall_timeout_s=20)
    begin = time.monotonic()
    async with raw_server([b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 1000], 0.05) as url:
        with pytest.raises(MirrorTrouble, match="no whole answer within"):
            await fetched(Request(url, silence_s=0.3), options)
    assert time.monotonic() - begin < 10


async def test_fresh(server: FaultyServer) -> None:
    """Only who asks for it is served past the caches on the way, redirects included."""
    server.always("/away", Redirect(server.url(PATH)))
    for fresh in (False, True):
        await fetched(Request(server.url("/away"), fresh=fresh))
    sent = [request.headers.get("cache-control") for request in server.requests]
    assert sent == [None, None, "no-cache", "no-cache"]


class BusyReceiver(MemoryReceiver):
    """A receiver that takes its time for each piece, and no real time: it moves the clock of the test."""

    def __init__(self, clock: trio.testing.MockClock, seconds: float) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds
        self.pieces = 0

    async def receive(self, data: bytes) -> None:
        """Take a piece in."""
        self.pieces += 1
        self.clock.jump(self.seconds)
        await super().receive(data)


@pytest.mark.parametrize("patience_s", [None, 0.5])
async def test_a_receiver_that_takes_long(
    mock_clock: trio.testing.MockClock, server: FaultyServer, patience_s: float | None
) -> None:
    """Time that this side spends is not the mirror's: it is neither too slow for it nor for others."""
    size = 4 << 20
    server.files = {"/long": bytes(size)}
    receiver = BusyReceiver(mock_clock, 100 * FAST.stall_timeout_s)
    http_fetcher = HttpFetcher(dataclasses.replace(FAST, min_speed_bytes_per_s=1 << 20))
    await http_fetcher.fetch(Request(server.url("/long"), length=size, patience_s=patience_s), receiver)
    await http_fetcher.close()
    assert len(receiver.data) == size
    assert receiver.pieces > 1


async def test_a_refusal_whose_body_drips() -> None:
    """What a 404 has to say beside that is not waited for."""
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9999\r\n\r\n"
    patient = HttpFetcher(dataclasses.replace(FAST, stall_timeout_s=60))
    async with raw_server([head, *[b"x"] * 100], pause_s=0.2) as url:
        with trio.fail_after(10), pytest.raises(NotThere):
            await patient.fetch(Request(url, length=9), MemoryReceiver())
    await patient.close()
