"""Write the .template of an image: the entries held against each other, the chunks compressed in threads.

Invariants of this file:
* The same raw data and entries give the same bytes, whatever the pieces and the number of threads.
* Memory does not grow with the image: besides the packed entries, `threads` chunks are being compressed
  and two wait.
* However it ends, no thread is left behind, and of what was not begun nothing is compressed any more.
* What no reader could read is refused before the first byte is written.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from jigdofs.errors import UsageError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.template import MAX_CHUNKS, Compression, Entry, ImageInfo, UnmatchedData
from jigdofs.format.template_writer import ChunkCutter, chunk_length, header, pack_chunk, pack_desc

MAX_THREADS = 16  # bzip2 takes 10 MB a thread with its chunk; a machine of 128 processors need not take 1 GB
_WAITING = 2  # chunks beyond those being compressed, so that no thread waits while one is written


class Writable(Protocol):
    """Where a template goes."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Take bytes; return how many were taken."""

    def flush(self) -> None:
        """Pass on what was taken."""


@dataclass(frozen=True, slots=True)
class WrittenTemplate:
    """What a .jigdo says about its template.

    Attributes:
        length: bytes.
        md5: of the whole file.
        sha256: of the whole file.
    """

    length: int
    md5: Checksum
    sha256: Checksum


def write_template(
    out: Writable,
    raw: Iterable[bytes],
    entries: Iterable[Entry],
    *,
    algorithm: Algorithm,
    compression: Compression,
    level: int,
    creator: str,
    threads: int | None = None,
) -> WrittenTemplate:
    """Write a template and flush `out`.

    Without any raw data there is no chunk. We and jigit-mkimage rebuild such an image; `jigdo-file
    make-image` 0.8 writes it and dies of SIGSEGV, as it does with templates of its own.

    Args:
        out: where to write; only ever appended to.
        raw: the unmatched data in image order, in pieces of any size; pulled in the caller's thread.
        entries: tile the image, and end with its image info; taken in before any of `raw`.
        algorithm: which checksums the entries have.
        compression: of the chunks.
        level: 0-9, as zlib and bzip2 understand it.
        creator: the writing program for the header.
        threads: how many compress; as many as this process has processors if None.

    Raises:
        UsageError: there are too many parts, or too much unmatched data, for a template to be read back.
        ValueError: the entries do not tile the image, or `raw` is not as long as they say.
        OSError: `out` cannot be written to; whatever `raw` raises is passed on as well.
    """
    tiling = _Tiling(entries)
    desc = pack_desc(tiling)
    length = chunk_length(compression, level)
    most = (MAX_CHUNKS - 1) * length
    if tiling.unmatched > most:
        raise UsageError(f"{tiling.unmatched} bytes belong to no part, but a template holds {most} at most")
    chunks = _cut(raw, ChunkCutter(length), tiling.unmatched)
    target = _Target(out)
    target.write(header(algorithm, creator, ""))
    with closing(_pack(chunks, compression, level, threads or _processors())) as packed:
        for chunk in packed:
            target.write(chunk)
    target.write(desc)
    out.flush()
    return target.written()


def _processors() -> int:
    return min(len(os.sched_getaffinity(0)), MAX_THREADS)


class _Tiling:
    """The entries as a template should have them, and what they add up to.

    Neighbouring unmatched entries become one, empty ones vanish, save in an image of no bytes: without
    it the DESC part would have 43 bytes, and jigdo-file reads none below 45 (format.md 1.1).

    Attributes:
        unmatched: bytes of raw data; known when the entries were iterated over.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = entries
        self.unmatched = 0

    def __iter__(self) -> Iterator[Entry]:
        position = 0
        gap = 0
        image: ImageInfo | None = None
        for entry in self._entries:
            if image is not None:
                raise ValueError("an entry follows the image info")
            if isinstance(entry, ImageInfo):
                image = entry
                continue
            position += entry.length
            if isinstance(entry, UnmatchedData):
                self.unmatched += entry.length
                gap += entry.length
                continue
            if gap:
                yield UnmatchedData(gap)
                gap = 0
            yield entry
        if image is None or image.length != position:
            raise ValueError(f"the entries cover {position} bytes, which is not what the image has")
        if gap or not position:
            yield UnmatchedData(gap)
        yield image


def _cut(raw: Iterable[bytes], cutter: ChunkCutter, expected: int) -> Iterator[bytearray]:
    """Yield the chunks of the raw data; raise `ValueError` if it has not the expected length."""
    taken = 0
    for piece in raw:
        taken += len(piece)
        if taken > expected:
            break
        yield from cutter.add(piece)
    if taken != expected:
        raise ValueError(f"the raw data is not the {expected} bytes that the entries say")
    yield from cutter.rest()


def _pack(
    chunks: Iterable[bytearray], compression: Compression, level: int, threads: int
) -> Generator[bytes, None, None]:
    """Yield the chunks compressed, in their order."""
    flying: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(threads, "compress") as pool:
        try:
            for chunk in chunks:
                if len(flying) >= threads + _WAITING:
                    yield flying.popleft().result()
                flying.append(pool.submit(pack_chunk, chunk, compression, level))
            while flying:
                yield flying.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Target:
    """The file being written; its length and checksums are known without a second reading."""

    def __init__(self, out: Writable) -> None:
        self._out = out
        self._length = 0
        self._md5 = Algorithm.MD5.hasher()
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # a file without a buffer may take less
            view = view[self._out.write(view) :]
        self._length += len(data)
        self._md5.update(data)
        self._sha256.update(data)

    def written(self) -> WrittenTemplate:
        return WrittenTemplate(self._length, Checksum(self._md5.digest()), Checksum(self._sha256.digest()))
