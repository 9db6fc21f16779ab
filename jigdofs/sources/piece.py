"""A piece: a stretch of a local file that may be a part, and how its bytes are had.

Invariants of this file:
* A piece is opened or hashed only while the whole file has the fingerprint it had when it was found.
* Neither a FIFO nor a device put in the place of a file holds us up.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import NamedTuple

from jigdofs.errors import SourceChanged
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.parts.open_file import Fingerprint

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_READ_BYTES = 1 << 20  # from 256 KiB on hashing is no faster with more


class Piece(NamedTuple):
    """A stretch of a local file that may be a part.

    Attributes:
        path: absolute.
        offset: where it begins in the file; 0 for a plain file.
        length: bytes; the size of the file for a plain file.
        fingerprint: of the whole file when it was found.
        checksums: what is known of it: remembered, or said by an old template. Not proven here.
    """

    path: str
    offset: int
    length: int
    fingerprint: Fingerprint
    checksums: tuple[Checksum, ...] = ()

    @property
    def is_whole_file(self) -> bool:
        """Tell whether it is a plain file, not a stretch of one."""
        return self.length == self.fingerprint.size

    def checksum(self, algorithm: Algorithm) -> Checksum | None:
        """Return what is known of it in this algorithm."""
        return next((known for known in self.checksums if known.algorithm is algorithm), None)

    def __str__(self) -> str:
        return self.path if self.is_whole_file else f"{self.path}, {self.length} bytes at {self.offset}"


def fingerprint_of(status: os.stat_result) -> Fingerprint:
    """Take the fingerprint out of what stat said."""
    return Fingerprint.of_status(status)


def open_regular(path: str) -> int:
    """Open a regular file for reading; raise `OSError`, also for anything that is none."""
    fd = os.open(path, _OPEN)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(None, "is no regular file", path)
    return fd


def open_piece(piece: Piece) -> int:
    """Open the file of a piece; raise `SourceChanged` if it is no longer the one that was found."""
    try:
        fd = open_regular(piece.path)
    except OSError as error:
        raise SourceChanged(f"{piece.path}: cannot be read: {error.strerror}") from error
    try:
        _check(fd, piece)
    except SourceChanged:
        os.close(fd)
        raise
    return fd


def hash_piece(fd: int, piece: Piece, algorithm: Algorithm) -> Checksum:
    """Compute the checksum of a piece; raise `SourceChanged` if the file changed meanwhile."""
    hasher = algorithm.hasher()
    buffer = memoryview(bytearray(min(_READ_BYTES, piece.length)))
    at, end = piece.offset, piece.offset + piece.length
    try:
        with contextlib.suppress(OSError):  # advice only: some file systems take none
            os.posix_fadvise(fd, piece.offset, piece.length, os.POSIX_FADV_SEQUENTIAL)
        while at < end:
            count = os.preadv(fd, [buffer[: end - at]], at)
            if not count:
                break  # it was cut short, as its fingerprint tells
            hasher.update(buffer[:count])
            at += count
    except OSError as error:
        raise SourceChanged(f"{piece.path}: cannot be read: {error.strerror}") from error
    _check(fd, piece)
    if at < end:
        raise SourceChanged(f"{piece.path}: ends before byte {end}")
    return Checksum(hasher.digest())


def _check(fd: int, piece: Piece) -> None:
    if fingerprint_of(os.fstat(fd)) != piece.fingerprint:
        raise SourceChanged(f"{piece.path}: changed since it was found")
