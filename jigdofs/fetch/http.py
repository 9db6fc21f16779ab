"""Fetch over HTTP. The only file that imports httpx.

Invariants of this file:
* Bytes are taken raw: another encoding than identity is wrong content, not something to undo.
* A redirect never leads from https to http, nor to anything but http and https; credentials go to
  the host they were given for only.
* No cancel scope of ours ever surrounds the making of a connection (httpcore#1093): httpx's own
  timeouts bound it. Whoever calls limits how many transfers run at once.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast

import httpcore
import httpx
import trio

from jigdofs.config import FetchOptions
from jigdofs.errors import FetchError, MirrorTrouble, NotThere, WrongContent
from jigdofs.fetch.fetcher import Answer, Receiver, Request
from jigdofs.fetch.http_header import Header, judge
from jigdofs.fetch.url import without_credentials

_NO_HEAD = {405, 501}
_KEEPALIVE_S = 30.0
_DRAIN_S = 1.0  # a connection is not worth more
_SMALL_BYTES = 256
_SMALL_PIECES = 512
_READ_BYTES = 512 << 10

# httpcore reads 64 KiB at a time, and each read costs it 290 us; fetching 495 MB over loopback with 8
# connections: 2.0 s with 64 KiB, 1.6 s with 256 KiB, 1.4 s with 1 MiB
httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = _READ_BYTES


class HttpFetcher:
    """Fetch http: and https: URLs over kept-alive connections; proxies and TLS from the environment."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        try:
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                timeout=httpx.Timeout(
                    connect=options.connect_timeout_s,
                    read=options.stall_timeout_s,
                    write=options.stall_timeout_s,
                    pool=None,
                ),
                # no cookies: they would grow with every answer, and tell mirrors who we are
                cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
                limits=httpx.Limits(
                    max_connections=None, max_keepalive_connections=64, keepalive_expiry=_KEEPALIVE_S
                ),
                headers={
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                    "User-Agent": options.user_agent or "jigdofs",
                },
            )
        except (ValueError, OSError, ImportError, httpx.InvalidURL) as error:
            raise MirrorTrouble("proxy or TLS settings of the environment", str(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def use(self, options: FetchOptions) -> None:
        """Follow other options from the next request on."""
        self._options = options

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Get a file or the rest of it; raise `FetchError`."""
        headers = {}
        if request.offset:
            headers["Range"] = f"bytes={request.offset}-"
        if request.fresh:
            headers["Cache-Control"] = "no-cache"
        if request.etag:
            headers["If-None-Match"] = request.etag
        elif request.last_modified:
            headers["If-Modified-Since"] = request.last_modified
        with _own_errors(request.url):
            began = trio.current_time()
            async with self._answer("GET", request.url, headers, request.silence_s) as response:
                pace = _Pace(self._options, request, began)
                await self._take(request, response, receiver, pace)

    async def ask(self, request: Request) -> Answer:
        """Tell what `fetch` would be told before the body, which is left where it is; raise `FetchError`.

        A server that refuses HEAD is asked for the first byte instead.
        """
        with _own_errors(request.url):
            async with self._answer("HEAD", request.url, {}) as response:
                if response.status_code not in _NO_HEAD:
                    return judge(request, _header(response), asking=True)
            async with self._answer("GET", request.url, {"Range": "bytes=0-0"}) as response:
                if response.status_code == 206 and response.headers.get("Content-Length") == "1":
                    await self._drain(response, _HeaderLimit(_DRAIN_S))
                return judge(request, _header(response), asking=True)

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str], silence_s: float | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Ask, follow redirects, and have the last answer open; its body is read already if it is no file."""
        outgoing = self._client.build_request(method, url, headers=headers, timeout=self._timeout(silence_s))
        limit = _HeaderLimit(2 * self._options.stall_timeout_s if silence_s is None else silence_s)
        for _ in range(self._options.max_redirects + 1):
            _check_host(outgoing.url)
            response = await self._send(outgoing, limit)
            try:
                following = response.next_request
                if method == "HEAD" or response.status_code not in (200, 206):
                    await self._drain(response, limit)
                if following is None:
                    yield response
                    return
                _check_redirect(url, outgoing, following)
                outgoing = following
            finally:
                await response.aclose()
        raise MirrorTrouble(without_credentials(url), f"more than {self._options.max_redirects} redirects")

    def _timeout(self, silence_s: float | None) -> httpx.Timeout:
        """Return how long each step may take."""
        connect_s, stall_s = self._options.connect_timeout_s, self._options.stall_timeout_s
        if silence_s is not None:
            connect_s, stall_s = min(connect_s, silence_s), min(stall_s, silence_s)
        return httpx.Timeout(connect=connect_s, read=stall_s, write=stall_s, pool=None)

    async def _send(self, outgoing: httpx.Request, limit: _HeaderLimit) -> httpx.Response:
        """Send a request and return its answer's header; a header that drips in is given up.

        httpx bounds each wait for bytes, not their sum. The clock starts when the connection
        stands, so this scope never cancels the making of one.
        """
        with trio.CancelScope() as scope:

            async def trace(event: str, _info: object) -> None:
                if event.endswith("send_request_headers.started"):
                    scope.deadline = limit.deadline()

            outgoing.extensions["trace"] = trace
            return await self._client.send(outgoing, stream=True)
        raise MirrorTrouble(
            without_credentials(str(outgoing.url)), f"no whole answer within {limit.seconds:g} s"
        )

    async def _drain(self, response: httpx.Response, limit: _HeaderLimit) -> None:
        """Read a small body that is of no use, so that the connection can be used again."""
        length = response.headers.get("Content-Length", "")
        empty = response.status_code in (204, 304) or response.request.method == "HEAD"
        if empty or (length.isascii() and length.isdigit() and len(length) < 6):
            with trio.move_on_at(min(limit.deadline(), trio.current_time() + _DRAIN_S)):
                async with contextlib.aclosing(_raw(response)) as body:
                    async for _ in body:
                        pass

    async def _take(
        self, request: Request, response: httpx.Response, receiver: Receiver, pace: _Pace
    ) -> None:
        """Judge the header, then pass the body on."""
        header = _header(response)
        url = header.url
        answer = judge(request, header)
        await receiver.begin(answer)
        if answer.not_modified:
            return
        received = answer.offset
        small = 0
        limit = request.max_length if request.length is None else request.length
        chunked = "Content-Length" not in response.headers
        async with contextlib.aclosing(_raw(response)) as body:
            async for data in body:
                received += len(data)
                small = small + 1 if len(data) < _SMALL_BYTES else 0
                if small and small % _SMALL_PIECES == 0:
                    await trio.lowlevel.checkpoint()  # others have their turn, and a cancellation its effect
                if received > limit:
                    raise WrongContent(url, f"sends more than {limit} bytes")
                if verdict := pace.verdict(len(data), limit - received):
                    raise MirrorTrouble(url, f"{verdict}: given up")
                began = trio.current_time()
                await receiver.receive(data)
                pace.excuse(trio.current_time() - began)
                if chunked and received == request.length:
                    break  # the end may never come; the checksum decides
        if request.length is not None and received != request.length:
            raise MirrorTrouble(url, f"ended after {received} of {request.length} bytes")


@contextlib.contextmanager
def _own_errors(requested: str) -> Iterator[None]:
    """Turn whatever the libraries raise into a `FetchError`."""
    url = without_credentials(requested)
    try:
        yield
    except FetchError:
        raise
    except httpx.TimeoutException as error:
        kind = "a connection" if isinstance(error, httpx.ConnectTimeout) else "bytes"
        raise MirrorTrouble(url, f"timed out waiting for {kind}") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise MirrorTrouble(url, _reason(error)) from None
    except (httpx.InvalidURL, httpx.CookieConflict, ValueError, OverflowError) as error:
        raise NotThere(url, f"is no valid URL: {error}") from None
    except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise MirrorTrouble(url, _reason(error)) from None


def _header(response: httpx.Response) -> Header:
    url = without_credentials(str(response.url))
    return Header(response.status_code, response.reason_phrase, response.headers, url)


def _raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Return the body as it is on the wire; it is a generator, whatever httpx's annotation says."""
    return cast("AsyncGenerator[bytes, None]", response.aiter_raw())


class _HeaderLimit:
    """How long it may take until the header of the last answer is here, all redirects together.

    Args:
        seconds: from when the first request is sent.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline: float | None = None

    def deadline(self) -> float:
        """Return when it is over; the first call begins it."""
        if self._deadline is None:
            self._deadline = trio.current_time() + self.seconds
        return self._deadline


class _Pace:
    """Tell whether a transfer crawls: below the minimum speed, or too slow for the reader's patience.

    Only the time counts in which we waited for the server, not what the receiver took: a slow disk, or
    a pause for somebody more urgent, is not the mirror's fault.
    """

    def __init__(self, options: FetchOptions, request: Request, began: float) -> None:
        stall_s, silence_s = options.stall_timeout_s, request.silence_s
        self._window_s = stall_s if silence_s is None else min(stall_s, silence_s)
        self._min_speed = options.min_speed_bytes_per_s
        self._deadline = None if request.patience_s is None else began + request.patience_s
        self._since = trio.current_time()
        self._bytes = 0

    def excuse(self, seconds: float) -> None:
        """Leave out time that was spent on this side."""
        self._since += seconds
        if self._deadline is not None:
            self._deadline += seconds

    def verdict(self, count: int, left: int) -> str:
        """Note bytes that came and how many are to come; say at the end of a window if it is too slow."""
        self._bytes += count
        now = trio.current_time()
        passed = now - self._since
        if passed < self._window_s:
            return ""
        speed = self._bytes / passed
        self._since, self._bytes = now, 0
        if speed < self._min_speed:
            return f"slower than {self._min_speed} bytes/s"
        if self._deadline is not None and left > speed * (self._deadline - now):
            return f"too slow at {speed:.0f} bytes/s, as others are left to be asked"
        return ""


def _check_host(url: httpx.URL) -> None:
    """Refuse a URL that names nobody: httpcore would ask whatever listens on port 80 of this machine."""
    if not url.host or url.port == 0:
        raise NotThere(without_credentials(str(url)), "names no host that could be asked")


def _check_redirect(url: str, outgoing: httpx.Request, following: httpx.Request) -> None:
    target = following.url
    if target.scheme not in ("http", "https"):
        raise WrongContent(without_credentials(url), f"redirects to a {target.scheme}: URL")
    if outgoing.url.scheme == "https" and target.scheme == "http":
        raise WrongContent(
            without_credentials(url), f"redirects from https to {without_credentials(str(target))}"
        )


def _reason(error: Exception) -> str:
    """Say in a few words what a library's exception means."""
    text = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError):
        return f"cannot connect: {text}"
    if isinstance(error, httpx.RemoteProtocolError):
        return f"the connection broke: {text}"
    if isinstance(error, httpx.ReadError):
        return "the connection was reset"
    return text
