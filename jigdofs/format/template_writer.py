"""Write .template files: the mirror of `template_reader`, with the same tables (format.md 1).

Rules of this file:
* Raw data is cut the same way however it comes: the pieces leave no trace in the template.
* No chunk is empty (jigdo-file dies of it), none inflates to more than `CHUNK_LENGTH`.
* What `template_reader` would refuse to read for its size is not written.

`create.template_file` writes templates with all processors; `TemplateWriter` is for small ones.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from jigdofs.errors import UsageError
from jigdofs.format.checksum import Algorithm
from jigdofs.format.template import (
    CHUNK_HEADER_SIZE,
    DESC_OVERHEAD,
    ENTRY_LAYOUT,
    HEADER_PREFIX,
    MAX_ENTRIES,
    MAX_PARTS,
    U48,
    Compression,
    Entry,
    EntryType,
    ImageInfo,
    MatchedFile,
    UnmatchedData,
)

CHUNK_LENGTH = 2 << 20
"""Most raw bytes a chunk: one random read inflates at most this much, in some 6 ms. Zeros then take 1.6 %
more than in jigdo-file's unbounded chunks; with half of it, as libjte chose, 3.5 %."""

_VERSION = {Algorithm.MD5: "1.2", Algorithm.SHA256: "2.0"}


def header(algorithm: Algorithm, creator: str, comment: str) -> bytes:
    """Return the three header lines; versions as jigdo-file writes them."""
    first = HEADER_PREFIX + f"{_VERSION[algorithm]} {creator}\r\n".encode("ascii")
    return first + comment.encode("ascii") + b"\r\n\r\n"


def pack_u48(number: int) -> bytes:
    """Write a six-byte little-endian number."""
    return U48.pack(number & 0xFFFFFFFF, number >> 32)


def pack_entry(entry: Entry) -> bytes:
    """Write one entry; the checksum's algorithm and a missing rsync64 choose the type."""
    low, high = entry.length & 0xFFFFFFFF, entry.length >> 32
    if isinstance(entry, UnmatchedData):
        return ENTRY_LAYOUT[EntryType.UNMATCHED_DATA].pack(EntryType.UNMATCHED_DATA, low, high)
    sha256 = entry.checksum.algorithm is Algorithm.SHA256
    digest = entry.checksum.digest
    if isinstance(entry, ImageInfo):
        kind = EntryType.IMAGE_INFO_SHA256 if sha256 else EntryType.IMAGE_INFO_MD5
        return ENTRY_LAYOUT[kind].pack(kind, low, high, digest, entry.block_length)
    kind = _file_type(entry, sha256=sha256)
    if entry.rsync64 is None:
        if sha256:
            raise ValueError("a SHA-256 entry needs an rsync64")
        return ENTRY_LAYOUT[kind].pack(kind, low, high, digest)
    if len(entry.rsync64) != 8:
        raise ValueError("an rsync64 has 8 bytes")
    return ENTRY_LAYOUT[kind].pack(kind, low, high, entry.rsync64, digest)


def _file_type(entry: MatchedFile, *, sha256: bool) -> EntryType:
    if entry.rsync64 is None:
        return EntryType.WRITTEN_FILE_OLD if entry.written else EntryType.MATCHED_FILE_OLD
    if sha256:
        return EntryType.WRITTEN_FILE_SHA256 if entry.written else EntryType.MATCHED_FILE_SHA256
    return EntryType.WRITTEN_FILE_MD5 if entry.written else EntryType.MATCHED_FILE_MD5


def pack_desc(entries: Iterable[Entry]) -> bytes:
    """Write the whole DESC part; raise `UsageError` where it grows beyond what is read back."""
    packed = bytearray()
    parts = 0
    for number, entry in enumerate(entries):
        packed += pack_entry(entry)
        parts += isinstance(entry, MatchedFile)
        if parts > MAX_PARTS:
            raise UsageError(f"more than {MAX_PARTS} parts: no reader takes so many; raise --min-length")
        if number >= MAX_ENTRIES:
            raise UsageError(f"more than {MAX_ENTRIES} entries: no reader takes so many; raise --min-length")
    length = pack_u48(len(packed) + DESC_OVERHEAD)
    return b"DESC" + length + packed + length


def chunk_length(compression: Compression, level: int) -> int:
    """Return how many raw bytes a chunk has, unless it is the last.

    A bzip2 block takes 100,000 bytes a level less 19, so a chunk is one block, as with jigdo-file.
    """
    return CHUNK_LENGTH if compression is Compression.ZLIB else 100_000 * max(level, 1) - 50


def pack_chunk(data: bytes | bytearray, compression: Compression, level: int = 9) -> bytes:
    """Compress one chunk of raw data with its header; `data` must not be empty (format.md 1.3)."""
    if not data:
        raise ValueError("an empty chunk cannot be read back by jigdo-file")
    if compression is Compression.ZLIB:
        packed = zlib.compress(data, level)
    else:
        packed = bz2.compress(data, max(level, 1))  # there is no level 0: jigdo-file takes 1 too
    length = pack_u48(CHUNK_HEADER_SIZE + len(packed))
    return compression.value + length + pack_u48(len(data)) + packed


class ChunkCutter:
    """Cut raw data, which comes in pieces of any size, into chunks of one length.

    Args:
        length: of every chunk but the last.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._pending = bytearray()

    def add(self, data: bytes) -> Iterator[bytearray]:
        """Take a piece in; yield the chunks that it fills."""
        view = memoryview(data)
        while len(self._pending) + len(view) >= self._length:
            missing = self._length - len(self._pending)
            self._pending += view[:missing]
            view = view[missing:]
            chunk, self._pending = self._pending, bytearray()
            yield chunk
        self._pending += view

    def rest(self) -> Iterator[bytearray]:
        """Yield the last chunk, if there is anything left for one."""
        if self._pending:
            chunk, self._pending = self._pending, bytearray()
            yield chunk


class TemplateWriter:
    """Write a template front to back in one thread: raw data as it comes, then the entries.

    Args:
        out: where to write; only ever appended to.
        algorithm: which checksums the entries will have.
        compression: of the chunks.
        level: 0-9, as zlib and bzip2 understand it.
        creator: the writing program for the header.
    """

    def __init__(
        self,
        out: BinaryIO,
        algorithm: Algorithm,
        *,
        creator: str,
        comment: str = "",
        compression: Compression = Compression.ZLIB,
        level: int = 9,
    ) -> None:
        self._out = out
        self._compression = compression
        self._level = level
        self._cutter = ChunkCutter(chunk_length(compression, level))
        out.write(header(algorithm, creator, comment))

    def raw_data(self, data: bytes) -> None:
        """Take the next unmatched bytes of the image in."""
        self._write(self._cutter.add(data))

    def finish(self, entries: Iterable[Entry]) -> None:
        """Write what is pending and the entries."""
        self._write(self._cutter.rest())
        self._out.write(pack_desc(entries))

    def _write(self, chunks: Iterable[bytearray]) -> None:
        for chunk in chunks:
            self._out.write(pack_chunk(chunk, self._compression, self._level))
