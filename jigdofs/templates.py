"""Get templates: local, from the cache by their checksum, or from the net; always verified."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

import trio

from jigdofs.config import FetchOptions
from jigdofs.errors import (
    FetchError,
    InputError,
    MirrorTrouble,
    NotThere,
    Unreachable,
    WrongContent,
    WrongTemplate,
)
from jigdofs.fetch import url as urls
from jigdofs.fetch.fetcher import Answer, Fetcher, Request
from jigdofs.fetch.retry import retrying
from jigdofs.fetch.url import without_credentials
from jigdofs.format.checksum import Algorithm, Checksum, Hasher
from jigdofs.image.raw_data import TemplateFile
from jigdofs.parts.cache import Cache
from jigdofs.parts.open_file import Fingerprint, OpenFile
from jigdofs.parts.spool import Place, Spool, temporary_room_bytes

MAX_TEMPLATE_BYTES = 64 << 30
MAX_UNANNOUNCED_BYTES = 1 << 30
"""Largest template we take from a server that does not say how large it is."""
_READ_BYTES = 1 << 20

Progress = Callable[[str, int, int | None], None]
"""Told URL, bytes so far and bytes in all (None if unknown) while a template is fetched."""


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """Where a template may be had and what it must be.

    Attributes:
        candidates: absolute paths and URLs, best first.
        checksums: all of them must match.
        wanted_by: the .jigdo and line that ask for it, for messages.
    """

    candidates: tuple[str, ...]
    checksums: tuple[Checksum, ...]
    wanted_by: str


class Templates:
    """Get templates as open, verified files.

    Args:
        fetcher: for URLs.
        cache: where fetched ones are kept, or None.
        fallbacks: where one is written that the cache does not take.
        options: how often to try.
        progress: told how far a transfer is.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        cache: Cache | None,
        fallbacks: tuple[Place, ...],
        options: FetchOptions,
        progress: Progress | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._fallbacks = fallbacks
        self._options = options
        self._progress = progress

    async def open(self, source: TemplateSource) -> TemplateFile:
        """Return the template; the caller closes it. Raise `InputError` if no candidate is it."""
        file = await self._cached(source.checksums)
        if file is not None:
            return _template_file(file.fd, without_credentials(source.candidates[0]), source.checksums[0])
        problems: list[FetchError] = []
        for candidate in source.candidates:
            try:
                if urls.is_http(candidate):
                    return await self._fetch(candidate, source.checksums)
                return await trio.to_thread.run_sync(_open_local, candidate, source.checksums)
            except FetchError as error:
                problems.append(error)
        # of many candidates a wrong one says more than those that do not exist
        telling = [error for error in problems if not isinstance(error, NotThere)] or problems
        reasons = "; ".join(map(str, telling)) or "the .jigdo names none"
        kind = InputError
        if any(isinstance(error, WrongContent) for error in problems):
            kind = WrongTemplate
        elif any(isinstance(error, MirrorTrouble) or urls.is_http(error.url) for error in problems):
            kind = Unreachable
        raise kind(f"{source.wanted_by}: its template cannot be had: {reasons}")

    async def _cached(self, checksums: tuple[Checksum, ...]) -> OpenFile | None:
        if self._cache is None or not checksums:
            return None
        return await trio.to_thread.run_sync(_open_cached, self._cache, checksums)

    async def _fetch(self, url: str, checksums: tuple[Checksum, ...]) -> TemplateFile:
        places = self._fallbacks
        if self._cache is not None and checksums:
            places = (self._cache.place(_key(checksums[0]), checksums[0]), *places)
        receiver = _Receiver(url, places, checksums, self._progress)

        async def attempt() -> None:
            request = Request(url, offset=receiver.received, max_length=MAX_TEMPLATE_BYTES)
            await self._fetcher.fetch(request, receiver)

        try:
            await retrying(attempt, self._options)
            return await trio.to_thread.run_sync(receiver.finish)
        finally:
            receiver.abandon()


def _open_cached(cache: Cache, checksums: tuple[Checksum, ...]) -> OpenFile | None:
    """Open a template from the cache, where its first checksum names it, and verify the others once."""
    key = _key(checksums[0])
    file = cache.open(key, None, checksums[0])
    if file is None or len(checksums) == 1:
        return file
    # the cache tells that it is the file it was; so what it was held against then holds still
    met = json.dumps([*Fingerprint.of(file.fd), *(checksum.hex for checksum in checksums)])
    if cache.document(f"template:{key}") == met:
        return file
    try:
        _verify(file.fd, "", checksums[1:])
    except WrongContent:
        file.discard()
        return None
    cache.note_document(f"template:{key}", met)
    return file


def _verify(fd: int, name: str, checksums: tuple[Checksum, ...]) -> Checksum:
    """Hold an open file against all checksums; return the one that names it.

    Raises:
        WrongContent: a checksum differs.
        MirrorTrouble: the file was written to meanwhile, so what was hashed may be gone.
    """
    before = Fingerprint.of(fd)
    hashers = _Hashers(checksums)
    offset = 0
    while data := os.pread(fd, _READ_BYTES, offset):
        hashers.update(data)
        offset += len(data)
    checksum = hashers.verdict(name)
    if Fingerprint.of(fd) != before:
        raise MirrorTrouble(name, "is being written to just now")
    return checksum


def _key(checksum: Checksum) -> str:
    return f"{checksum.algorithm.short_name}-{checksum.hex}"


def _template_file(fd: int, name: str, checksum: Checksum) -> TemplateFile:
    """Describe a file that was just verified: a write after that shows in its fingerprint."""
    fingerprint = Fingerprint.of(fd)
    return TemplateFile(fd, name, checksum.hex, (fingerprint.size, fingerprint.mtime_ns))


def _open_local(path: str, checksums: tuple[Checksum, ...]) -> TemplateFile:
    """Open a local template and verify it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotThere(path, error.strerror or "cannot be opened") from None
    except ValueError:
        raise NotThere(path, "no file can have that name") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotThere(path, "is no regular file")
        before = Fingerprint.of(fd)
        checksum = _verify(fd, path, checksums)
        return TemplateFile(fd, path, checksum.hex, (before.size, before.mtime_ns))
    except BaseException:
        os.close(fd)
        raise


class _Hashers:
    """Compute every checksum that is wanted, SHA-256 if none is."""

    def __init__(self, wanted: tuple[Checksum, ...]) -> None:
        self._wanted = wanted
        algorithms = {checksum.algorithm for checksum in wanted} or {Algorithm.SHA256}
        self._hashers: dict[Algorithm, Hasher] = {algorithm: algorithm.hasher() for algorithm in algorithms}

    def update(self, data: bytes | bytearray) -> None:
        """Take bytes in."""
        for hasher in self._hashers.values():
            hasher.update(data)

    def verdict(self, name: str) -> Checksum:
        """Return the checksum that names the template; raise `WrongContent` if one does not match."""
        computed = {algorithm: Checksum(hasher.digest()) for algorithm, hasher in self._hashers.items()}
        for checksum in self._wanted:
            if computed[checksum.algorithm] != checksum:
                raise WrongContent(
                    name,
                    f"is not the template that belongs to the .jigdo: its {checksum.algorithm.short_name}"
                    f" is {computed[checksum.algorithm].hex}, not {checksum.hex}",
                )
        return self._wanted[0] if self._wanted else computed[Algorithm.SHA256]


class _Receiver:
    """Take a template in, into the cache if it has a place there."""

    def __init__(
        self,
        url: str,
        places: tuple[Place, ...],
        checksums: tuple[Checksum, ...],
        progress: Progress | None,
    ) -> None:
        self._name = without_credentials(url)
        self._places = places
        self._checksums = checksums
        self._progress = progress
        self._hashers = _Hashers(checksums)
        self._spool: Spool | None = None
        self._length: int | None = None
        self._batch = bytearray()

    @property
    def received(self) -> int:
        """Bytes taken in so far."""
        return (self._spool.received if self._spool else 0) + len(self._batch)

    async def begin(self, answer: Answer) -> None:
        """Go on where we were, or begin anew if the server sends everything."""
        changed = None not in (answer.length, self._length) and answer.length != self._length
        if self._spool is not None and answer.offset == self.received and not changed:
            return
        self.abandon()
        self._spool = None
        self._batch.clear()
        self._hashers = _Hashers(self._checksums)
        if answer.offset:
            raise MirrorTrouble(self._name, "changed while it was fetched")
        self._length = answer.length
        length = answer.length
        if length is None:  # nothing can be reserved: what the temporary directory has is the limit
            length = min(MAX_UNANNOUNCED_BYTES, temporary_room_bytes())
        self._spool = Spool(length, self._places, Algorithm.MD5.hasher)

    async def receive(self, data: bytes) -> None:
        """Take bytes in."""
        self._batch += data
        if self._spool is not None and self.received > self._spool.length:
            raise WrongContent(
                self._name, f"sends more than the {self._spool.length} bytes there is room for"
            )
        if self._progress:
            self._progress(self._name, self.received, self._length)
        if len(self._batch) >= _READ_BYTES:
            await trio.to_thread.run_sync(self._write)

    def _write(self) -> None:
        assert self._spool is not None
        batch, self._batch = self._batch, bytearray()
        self._hashers.update(batch)
        self._spool.write(batch)

    def finish(self) -> TemplateFile:
        """Check the whole and keep it."""
        assert self._spool is not None
        self._write()
        checksum = self._hashers.verdict(self._name)
        return _template_file(self._spool.finish().fd, self._name, checksum)

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._spool is not None:
            self._spool.abandon()
