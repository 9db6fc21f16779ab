"""The raw data: the template's chunks, each inflated into a file of its own when first read.

Invariants of this file:
* Memory does not grow with a chunk. One chunk was seen to inflate to 42 MB from 0.3 MB (format.md 1.3), so
  bytes are streamed from the template to the file in pieces.
* Nothing is inflated from a template that is not what it was when it was verified: it is hashed again when
  anybody did anything to it, and had anew if it is wrong.
"""

from __future__ import annotations

import bz2
import contextlib
import logging
import os
import threading
import zlib
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator
from itertools import accumulate
from typing import NamedTuple, Protocol

import trio

from jigdofs.errors import FormatError, InputError, JigdofsError
from jigdofs.format.checksum import Checksum
from jigdofs.format.template import Chunk, Compression
from jigdofs.image.opener import ChunkSlice, OpenFile

_log = logging.getLogger(__name__)

PIECE_BYTES = 256 << 10

_CHANGED = "the template changed since it was read; begin anew (a mount: unmount first)"

Write = Callable[[bytes], None]


class ObjectStore(Protocol):
    """Where inflated chunks are kept: files by key, made on demand."""

    def peek(self, key: str, length: int) -> OpenFile | None:
        """Return the file if it is open already, or can be opened without waiting."""

    async def open_made(self, key: str, length: int, make: Callable[[Write], None]) -> OpenFile:
        """Return the file, pinned; call `make` in a thread to write it if it does not exist."""

    def hint_made(self, key: str, length: int, make: Callable[[Write], None]) -> None:
        """Begin to make the file in the background."""


class TemplateFile(NamedTuple):
    """An open template whose checksum was verified.

    Attributes:
        fd: its descriptor, open as long as the image is.
        name: path or URL, for messages.
        digest: hex checksum of the whole file: names its chunks in the cache.
        fingerprint: size and mtime_ns when it was verified.
    """

    fd: int
    name: str
    digest: str
    fingerprint: tuple[int, int]


Renew = Callable[[], Awaitable[TemplateFile]]


class RawData:
    """The concatenation of all unmatched data, as files that hold one chunk each.

    Args:
        template: has the chunks.
        chunks: all of them, in order.
        store: keeps what was inflated.
        renew: has the same template anew, where that is possible; raises `JigdofsError`.

    Attributes:
        keys: of these files in the store, in order.
    """

    def __init__(
        self,
        template: TemplateFile,
        chunks: tuple[Chunk, ...],
        store: ObjectStore,
        renew: Renew | None = None,
    ) -> None:
        self._template = _Watched(template)
        self._renew = renew
        self._renewing = trio.Lock()
        self._chunks = chunks
        self._starts = [0, *accumulate(chunk.length for chunk in chunks)]
        self._store = store
        self.keys = [f"raw-{template.digest}-{number}" for number in range(len(chunks))]

    def slices(self, offset: int, length: int) -> Iterator[ChunkSlice]:
        """Yield the pieces of chunks that hold a range of the raw data."""
        number = bisect_right(self._starts, offset) - 1
        while length:
            within = offset - self._starts[number]
            taken = min(length, self._chunks[number].length - within)
            yield ChunkSlice(number, within, taken)
            offset += taken
            length -= taken
            number += 1

    def peek(self, key: int) -> OpenFile | None:
        """Return an inflated chunk if no waiting is needed."""
        return self._store.peek(self.keys[key], self._chunks[key].length)

    async def open(self, key: int) -> OpenFile:
        """Return an inflated chunk, pinned; raise `FormatError` where it is damaged."""
        template = self._template
        try:
            return await self._open(key, template)
        except (FormatError, InputError):
            if not await self._renewed(template):
                raise
        return await self._open(key, self._template)

    async def _open(self, key: int, template: _Watched) -> OpenFile:
        make = self._inflate(key, template)
        return await self._store.open_made(self.keys[key], self._chunks[key].length, make)

    async def _renewed(self, template: _Watched) -> bool:
        """Have the template anew if it is not what it was; tell whether another one is used from now on."""
        async with self._renewing:
            if self._template is not template:
                return True
            if self._renew is None or await trio.to_thread.run_sync(template.is_right):
                return False
            _log.warning("%s: the template was changed since it was read; having it anew", template.file.name)
            try:
                again = await self._renew()
            except JigdofsError as trouble:
                _log.info("%s", trouble)
                return False
            self._template = _Watched(again)
            return True

    def hint(self, key: int) -> None:
        """Begin to inflate a chunk in the background."""
        make = self._inflate(key, self._template)
        self._store.hint_made(self.keys[key], self._chunks[key].length, make)

    def _inflate(self, key: int, template: _Watched) -> Callable[[Write], None]:
        chunk = self._chunks[key]

        def make(write: Write) -> None:
            template.check()
            for piece in inflate(template.file, chunk):
                write(piece)
            template.check()

        return make


class _Watched:
    """A template, and what its file was like when it was last known to be right. Methods block.

    Removing it or giving it another name changes its ctime and not its content, so it is hashed then.
    """

    def __init__(self, file: TemplateFile) -> None:
        self.file = file
        self._checking = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        with contextlib.suppress(OSError):
            seen = self._look()
            if seen[:2] == file.fingerprint:
                self._seen = seen

    def _look(self) -> tuple[int, ...]:
        status = os.fstat(self.file.fd)
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def is_right(self) -> bool:
        """Tell whether it is what was verified."""
        with self._checking:
            before = self._look()
            if before == self._seen:
                return True
            if self._hash() != self.file.digest or self._look() != before:
                return False
            self._seen = before
            return True

    def _hash(self) -> str:
        try:
            hasher = Checksum(bytes.fromhex(self.file.digest)).algorithm.hasher()
        except ValueError:
            return ""
        at = 0
        while data := os.pread(self.file.fd, PIECE_BYTES, at):
            if at > self.file.fingerprint[0]:
                return ""  # longer than it was, perhaps by a hole without end
            hasher.update(data)
            at += len(data)
        return hasher.digest().hex()

    def check(self) -> None:
        """Raise `InputError` if it is not what was verified."""
        if not self.is_right():
            raise InputError(f"{self.file.name}: {_CHANGED}")


def check_unchanged(template: TemplateFile) -> None:
    """Raise `InputError` if the template file was written to since it was verified."""
    status = os.fstat(template.fd)
    if (status.st_size, status.st_mtime_ns) != template.fingerprint:
        raise InputError(f"{template.name}: {_CHANGED}")


def inflate(template: TemplateFile, chunk: Chunk) -> Iterator[bytes]:
    """Yield the raw data of a chunk in pieces of at most 1 MiB; raise `FormatError` if it is damaged."""
    inflater = _ZlibInflater() if chunk.compression is Compression.ZLIB else _Bzip2Inflater()
    produced = 0
    at, end = chunk.offset, chunk.offset + chunk.size
    try:
        while not inflater.eof and (at < end or not inflater.needs_input):
            fed = b""
            if inflater.needs_input:
                fed = os.pread(template.fd, min(PIECE_BYTES, end - at), at)
                at += len(fed)
                if not fed:
                    break
            piece = inflater.inflate(fed)
            produced += len(piece)
            if produced > chunk.length:
                break
            if piece:
                yield piece
    except (zlib.error, OSError, ValueError) as error:
        raise FormatError(
            f"damaged {chunk.compression.value.decode()} part: {error}",
            source=template.name,
            offset=chunk.offset,
        ) from None
    if produced != chunk.length or not inflater.eof:
        raise FormatError(
            f"a {chunk.compression.value.decode()} part does not hold the {chunk.length} bytes it announces",
            source=template.name,
            offset=chunk.offset,
        )


class _ZlibInflater:
    """Inflate with bounded output, told apart from zlib's own object by `needs_input`."""

    max_output = 1 << 20

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj()

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail

    def inflate(self, data: bytes) -> bytes:
        return self._inflater.decompress(data or self._inflater.unconsumed_tail, self.max_output)


class _Bzip2Inflater:
    """The same face over bz2."""

    max_output = 1 << 20

    def __init__(self) -> None:
        self._inflater = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return self._inflater.needs_input

    def inflate(self, data: bytes) -> bytes:
        return self._inflater.decompress(data, self.max_output)
