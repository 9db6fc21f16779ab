"""Answer HTTP requests from a namespace: an ASGI application, protocol only.

Invariants of this file:
* A body is whole, or its connection breaks: what was sent never looks complete when it is not.
* Nothing leaves it; an error is a line in the log and one for the client.
* What one request holds in memory is one piece, or some rows, however large a file or directory is.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import mimetypes
import os
import re
import stat
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any, NamedTuple

import trio

from jigdofs.contents.namespace import Attributes, Namespace
from jigdofs.contents.opened_file import OpenedFile
from jigdofs.errors import JigdofsError, NoSuchFile, ReadTimeout, WrongKind, leaf_of
from jigdofs.logs import ErrorLog
from jigdofs.serve import pages
from jigdofs.serve.directories import rows_of
from jigdofs.serve.ranges import Answer, Validators, decide

_log = logging.getLogger(__name__)

PIECE_BYTES = 512 << 10
"""Measured: one curl of a warm image took 1.6, 2.2, 1.8 and 1.1 GB/s with pieces of 256 and 512 KiB, 1 and
2 MiB, while each of its parts was opened anew (2 cores, medians of 9)."""
MAX_REQUESTS = 256
"""Answered at once: a client that takes nothing holds a piece twice, ours and the bytes hypercorn wants.
Beyond that clients are told to come again."""
# not what the machine's /etc/mime.types says: an .iso is bytes everywhere
_KINDS = mimetypes.MimeTypes()
_ORIGIN = re.compile(rb"\Ahttps?://[^/]*", re.IGNORECASE)  # of a request to a proxy (RFC 9112 3.2.2)

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)
"""What a connection raises that its client has left, perhaps while the server closes it."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class _Refusal(Exception):
    """Say that a request is answered with an error."""

    def __init__(self, status: int, text: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.status = status
        self.text = text
        self.headers = list(headers)
        super().__init__(text)


class _Found(NamedTuple):
    """What a path leads to."""

    node: int
    attributes: Attributes


class Application:
    """The ASGI application.

    Args:
        namespace: what is shown.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._running = 0
        self._errors = ErrorLog(_log)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; what else the server could speak is none."""
        if scope["type"] != "http":
            return
        self._running += 1
        try:
            await self._until_hung_up(scope, receive, send)
        except Exception as error:  # noqa: BLE001  it ends one request, whatever became of its connection
            leaf = leaf_of(error)
            if not isinstance(leaf, _GONE):
                _log.warning("a request was given up: %r", leaf)
        finally:
            self._running -= 1

    async def _until_hung_up(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer; give up when the client does, as it may be waiting for a part that takes minutes."""
        ending = False

        async def sending(message: Message) -> None:
            nonlocal ending
            ending = message["type"] == "http.response.body" and not message["more_body"]
            await send(message)

        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                # the server says so at the end of each answer, too, and closes the connection within `send`
                if not ending:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await self._answer(scope, sending)
            nursery.cancel_scope.cancel()

    async def _answer(self, scope: Message, send: Send) -> None:
        head = scope["method"] == "HEAD"
        try:
            if self._running > MAX_REQUESTS:
                raise _Refusal(503, "too many requests at once; come again", [(b"retry-after", b"1")])
            if scope["method"] not in ("GET", "HEAD"):
                raise _Refusal(405, "only GET and HEAD are answered", [(b"allow", b"GET, HEAD")])
            path = _path(scope)
            found = await self._find(path)
            if stat.S_ISDIR(found.attributes.mode):
                await self._send_listing(path, found.node, send, head=head)
            elif path.endswith(b"/") or not stat.S_ISREG(found.attributes.mode):
                raise _Refusal(404, "that is no directory and no file")  # a device, perhaps
            else:
                await self._send_file(path, found, scope, send, head=head)
        except _Refusal as refusal:
            await _send_text(send, refusal, head=head)
        except JigdofsError as error:
            await _send_text(send, self._refusal(scope, error), head=head)

    async def _find(self, path: bytes) -> _Found:
        try:
            node = await self._namespace.resolve(path)
            return _Found(node, await self._namespace.attributes(node))
        except (NoSuchFile, WrongKind):
            raise _Refusal(404, "there is no such file") from None

    def _refusal(self, scope: Message, error: JigdofsError) -> _Refusal:
        """Log an error, and turn it into what the client is told."""
        self._errors.report(f"{scope['method']} {scope['path']!a}", error)
        if isinstance(error, NoSuchFile | WrongKind):
            return _Refusal(404, str(error))
        # what our mirrors are called is no client's business
        if isinstance(error, ReadTimeout):
            return _Refusal(504, "it cannot be had in time; the log of jigdofs says more")
        return _Refusal(502, "a part of it cannot be had; the log of jigdofs says why")

    # -- directories -------------------------------------------------------------------------------

    async def _send_listing(self, path: bytes, node: int, send: Send, *, head: bool) -> None:
        if not path.endswith(b"/"):
            location = urllib.parse.quote(b"/" + path.strip(b"/") + b"/", safe="/")
            raise _Refusal(301, "this is a directory", [(b"location", location.encode())])
        headers = [(b"content-type", b"text/html; charset=utf-8")]
        if head:
            await _start(send, 200, headers)
            await _body(send, b"")
            return
        async with contextlib.aclosing(rows_of(self._namespace, path, node)) as groups:
            page = pages.begin(path) + pages.lines(await anext(groups))
            rest = await anext(groups, None)
            if rest is None:  # nearly always: its length can be told
                page += pages.END
                await _start(send, 200, [*headers, (b"content-length", b"%d" % len(page))])
                await _body(send, page)
                return
            await _start(send, 200, headers)
            while rest is not None:
                await _body(send, page, more=True)
                page, rest = pages.lines(rest), await anext(groups, None)
            await _body(send, page + pages.END)

    # -- files -------------------------------------------------------------------------------------

    async def _send_file(self, path: bytes, found: _Found, scope: Message, send: Send, *, head: bool) -> None:
        attributes = found.attributes
        opened = await self._namespace.open(found.node)
        etag = b'"%s"' % (await self._namespace.identity(found.node)).encode()
        validators = Validators(etag, attributes.mtime_ns // 10**9)
        asked = _lower(scope["headers"])
        if head:
            asked.pop(b"range", None)  # which is for GET alone (RFC 9110 14.2)
        answer = decide(asked, opened.size, validators)
        headers = _file_headers(path, opened.size, validators, answer)
        if head or answer.begin == answer.end:
            await _start(send, answer.status, headers)
            await _body(send, b"")
            return
        # read before anything is promised: a part that cannot be had is an error then, not a broken answer
        pieces = _pieces(answer.begin, answer.end)
        piece = await opened.read(*next(pieces))
        await _start(send, answer.status, headers)
        await self._send_body(opened, piece, pieces, send)

    async def _send_body(
        self, opened: OpenedFile, piece: bytearray, pieces: Iterator[tuple[int, int]], send: Send
    ) -> None:
        """Send the first piece and the others; return without an end where one cannot be had."""
        for offset, size in pieces:
            await _body(send, bytes(piece), more=True)
            try:
                piece = await opened.read(offset, size)
            except JigdofsError as error:
                self._errors.report(f"{size} bytes at offset {offset} of {opened.label}", error)
                return  # the server breaks the connection of an answer that was not ended
        await _body(send, bytes(piece))


def _pieces(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for offset in range(begin, end, PIECE_BYTES):
        yield offset, min(PIECE_BYTES, end - offset)


def _path(scope: Message) -> bytes:
    """Return the path of a request, unescaped; raise `_Refusal` for one that no file can have."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:  # it is optional in ASGI; `path` is unescaped already
        path: bytes = scope["path"].encode("utf-8", "surrogateescape")
    else:
        path = urllib.parse.unquote_to_bytes(_ORIGIN.sub(b"", raw.partition(b"?")[0]))
    if not path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/"):
        raise _Refusal(400, "that is no path")
    return path


def _lower(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return a request's headers by name; several of one name are one, parted by commas (RFC 9110 5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        key = bytes(name).lower()
        found[key] = found[key] + b", " + bytes(value) if key in found else bytes(value)
    return found


def _file_headers(path: bytes, size: int, validators: Validators, answer: Answer) -> Headers:
    # the slash keeps a name like `data:,x` from being taken for a URL
    kind = _KINDS.guess_type("/" + os.fsdecode(path.rsplit(b"/", 1)[-1]), strict=False)
    # what is compressed is sent as it is: no client is to unpack it on the way
    content_type = kind[0] if kind[0] and not kind[1] else "application/octet-stream"
    headers = [
        (b"accept-ranges", b"bytes"),
        (b"etag", validators.etag),
        (b"last-modified", email.utils.formatdate(validators.mtime_s, usegmt=True).encode()),
    ]
    if answer.status in (200, 206):
        headers += [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % (answer.end - answer.begin)),
        ]
    if answer.status == 206:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (answer.begin, answer.end - 1, size)))
    if answer.status == 416:
        headers.append((b"content-range", b"bytes */%d" % size))
    if answer.status in (412, 416):
        headers.append((b"content-length", b"0"))
    return headers


async def _send_text(send: Send, refusal: _Refusal, *, head: bool) -> None:
    text = f"{refusal.text}\n".encode("utf-8", "replace")
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
    await _start(send, refusal.status, [*headers, *refusal.headers])
    await _body(send, b"" if head else text)


async def _start(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _body(send: Send, data: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})
