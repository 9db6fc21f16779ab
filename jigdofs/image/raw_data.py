"""The raw data: the template's chunks, each inflated into a file of its own when first read.

Invariant of this file: memory does not grow with a chunk. One chunk was seen to inflate to 42 MB
from 0.3 MB (format.md 1.3), so bytes are streamed from the template to the file in pieces.
"""

from __future__ import annotations

import bz2
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple, Protocol

from jigdofs.errors import FormatError, InputError
from jigdofs.format.template import Chunk, Compression
from jigdofs.image.opener import ChunkSlice, OpenFile

PIECE_BYTES = 256 << 10

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


class RawData:
    """The concatenation of all unmatched data, as files that hold one chunk each.

    Attributes:
        keys: of these files in the store, in order.
    """

    def __init__(self, template: TemplateFile, chunks: tuple[Chunk, ...], store: ObjectStore) -> None:
        self._template = template
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
        return await self._store.open_made(self.keys[key], self._chunks[key].length, self._inflate(key))

    def hint(self, key: int) -> None:
        """Begin to inflate a chunk in the background."""
        self._store.hint_made(self.keys[key], self._chunks[key].length, self._inflate(key))

    def _inflate(self, key: int) -> Callable[[Write], None]:
        template, chunk = self._template, self._chunks[key]

        def make(write: Write) -> None:
            check_unchanged(template)
            for piece in inflate(template, chunk):
                write(piece)
            check_unchanged(template)

        return make


def check_unchanged(template: TemplateFile) -> None:
    """Raise `InputError` if the template file was written to since it was verified."""
    status = os.fstat(template.fd)
    if (status.st_size, status.st_mtime_ns) != template.fingerprint:
        raise InputError(
            f"{template.name}: the template changed since it was read; begin anew (a mount: unmount first)"
        )


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
