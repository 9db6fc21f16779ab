"""Get .jigdo files by path or URL.

A URL is asked for again each time, with the validators of the copy we kept: an unchanged file costs
an answer without a body, and the copy serves when the server cannot be reached.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import logging
import os
import stat
from dataclasses import dataclass

import trio

from jigdofs.config import FetchOptions
from jigdofs.errors import FetchError, InputError, MirrorTrouble, Unreachable
from jigdofs.fetch import url as urls
from jigdofs.fetch.fetcher import Answer, Fetcher, MemoryReceiver, Request
from jigdofs.fetch.retry import retrying
from jigdofs.parts.cache import Cache
from jigdofs.parts.small_files import keep_small, read_small

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Document:
    """A small file in memory and when it was last changed (seconds since 1970, 0 if unknown)."""

    data: bytes
    mtime_s: float


class Documents:
    """Get whole small files.

    Args:
        fetcher: for URLs.
        cache: where copies are kept, or None.
        options: how often to try.
    """

    def __init__(self, fetcher: Fetcher, cache: Cache | None, options: FetchOptions) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._options = options

    async def read(self, source: str, max_bytes: int) -> Document:
        """Return a whole file from a path or URL; raise `InputError` or `Unreachable`."""
        if not urls.is_http(source):
            return await trio.to_thread.run_sync(_read_local, source, max_bytes)
        url = urls.escape(source)[0]
        copy = None
        if self._cache is not None:
            copy = await trio.to_thread.run_sync(_read_copy, self._cache, url)
        request = Request(url, max_length=max_bytes)
        if copy is not None:
            request = Request(url, max_length=max_bytes, etag=copy.etag, last_modified=copy.last_modified)
        receiver = MemoryReceiver()
        try:
            await retrying(lambda: self._fetcher.fetch(request, receiver), self._options)
        except MirrorTrouble as error:
            if copy is None:
                raise Unreachable(str(error)) from error
            _log.warning("%s; using the copy of an earlier time", error)
            return Document(copy.data, _date(copy.last_modified))
        except FetchError as error:
            raise Unreachable(str(error)) from error
        answer = receiver.answer
        if answer.not_modified and copy is not None:
            return Document(copy.data, _date(copy.last_modified))
        data = bytes(receiver.data)
        if self._cache is not None and (answer.etag or answer.last_modified):
            await trio.to_thread.run_sync(_write_copy, self._cache, url, data, answer)
        return Document(data, _date(answer.last_modified))


@dataclass(frozen=True, slots=True)
class _Copy:
    """A file kept from an earlier time and what the server said of it."""

    data: bytes
    etag: str
    last_modified: str


def document_key(url: str) -> str:
    """Name the copy of a URL, escaped, in the cache."""
    return "doc-" + hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()


def _read_copy(cache: Cache, url: str) -> _Copy | None:
    note = cache.document(url)
    data = read_small(cache, document_key(url)) if note else None
    if note is None or data is None:
        return None
    with contextlib.suppress(ValueError):
        match json.loads(note):
            case {"etag": str(etag), "last_modified": str(last_modified)}:
                return _Copy(data, etag, last_modified)
    return None


def _write_copy(cache: Cache, url: str, data: bytes, answer: Answer) -> None:
    if keep_small(cache, document_key(url), data):
        cache.note_document(url, json.dumps({"etag": answer.etag, "last_modified": answer.last_modified}))


def _date(text: str) -> float:
    """Read an HTTP date; 0 if there is none."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _read_local(path: str, max_bytes: int) -> Document:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError:
        raise InputError(f"{path}: no file can have that name") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise InputError(f"{path}: is {kind}, not a .jigdo")
    with open(fd, "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(f"{path}: is larger than {max_bytes >> 20} MiB: no .jigdo is")
    return Document(data, status.st_mtime)
