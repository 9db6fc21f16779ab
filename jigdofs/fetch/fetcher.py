"""The one interface through which outside bytes come, and the choice by scheme.

Invariant of this file: only `FetchError` leaves a fetcher, whatever its library raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jigdofs.errors import NotThere
from jigdofs.fetch.url import is_http


@dataclass(frozen=True, slots=True)
class Request:
    """What to get.

    Attributes:
        url: http:, https:, or an absolute path.
        offset: begin there, if the server can; 0 for all.
        length: of the whole file, where it is known; any other length is wrong content.
        max_length: give up beyond this many bytes.
        silence_s: give up after so long without a byte or a whole header, and look at the speed as often;
            None for what is usual.
        patience_s: give up where, at the present speed, the whole takes longer than this; None never.
        fresh: a cache on the way is to ask the server again, as what it gave was wrong (RFC 9111 5.2.1.4).
        etag: ask only for something else than this version (RFC 9110 13.1.2), "" for no such wish.
        last_modified: the same by date.
    """

    url: str
    offset: int = 0
    length: int | None = None
    max_length: int = 1 << 40
    silence_s: float | None = None
    patience_s: float | None = None
    fresh: bool = False
    etag: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says before the body.

    Attributes:
        offset: where the body begins: the requested offset, or 0 if the server sends all.
        length: of the whole file, if the server says.
        not_modified: there is no body; the version asked about is current.
        url: where the answer came from in the end.
        etag: validator for next time, or "".
        last_modified: the same as a date.
    """

    offset: int = 0
    length: int | None = None
    not_modified: bool = False
    url: str = ""
    etag: str = ""
    last_modified: str = ""


class Receiver(Protocol):
    """Who takes the bytes."""

    async def begin(self, answer: Answer) -> None:
        """Learn where the body begins; called once, before any bytes."""

    async def receive(self, data: bytes) -> None:
        """Take the next bytes."""


class Fetcher(Protocol):
    """One way to get bytes."""

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Get a file or the rest of it; raise `FetchError`."""

    async def ask(self, request: Request) -> Answer:
        """Tell what is known of a whole file without getting it; raise `FetchError` where `fetch` would.

        Of the request, the URL and what it says of the length count.
        """


class SchemeFetcher:
    """Choose a fetcher by the form of the URL.

    Args:
        http: for http: and https:.
        file: for absolute paths.
    """

    def __init__(self, http: Fetcher, file: Fetcher) -> None:
        self._http = http
        self._file = file

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Pass the request on; raise `FetchError` for any other scheme."""
        await self._chosen(request.url).fetch(request, receiver)

    async def ask(self, request: Request) -> Answer:
        """Pass the question on; raise `FetchError` for any other scheme."""
        return await self._chosen(request.url).ask(request)

    def _chosen(self, url: str) -> Fetcher:
        if url.startswith("/"):
            return self._file
        if is_http(url):
            return self._http
        raise NotThere(url, "only http:, https: and local files can be fetched")


class MemoryReceiver:
    """Keep a small file in memory."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.data = bytearray()

    async def begin(self, answer: Answer) -> None:
        """Note the answer and begin anew."""
        self.answer = answer
        self.data.clear()

    async def receive(self, data: bytes) -> None:
        """Append; the fetcher has bounded the length."""
        self.data += data
