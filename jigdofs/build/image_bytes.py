"""The bytes of an image that is being built: written, copied in by the kernel, hashed where they lie."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from jigdofs.errors import JigdofsError, NoRoom
from jigdofs.format.checksum import Algorithm, Checksum, Hasher

_PIECE_BYTES = 1 << 20
HOLE_GRAIN_BYTES = 64 << 10
"""Largest block we reckon with: 4 KiB on most filesystems, 64 KiB on some."""
_MIN_BEGUN_BYTES = 256 << 10
"""Less is not worth another kind of request."""
_COPY_IMPOSSIBLE = {
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EPERM,
    errno.ETXTBSY,
}


class ImageBytes:
    """An open file that becomes an image. Methods may be called from any thread.

    Attributes:
        path: of the file, for messages.
        fd: its descriptor.
    """

    path: str
    fd: int

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write bytes of the image; raise `NoRoom`, or `JigdofsError` where the disk fails."""
        with self._disk():
            self._write(data, offset)

    def _write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            offset += written
            view = view[written:]

    def _read(self, offset: int, length: int) -> bytes:
        pieces = []
        while length > 0 and (piece := os.pread(self.fd, min(length, _PIECE_BYTES), offset)):
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def copy_in(self, source: int, source_offset: int, offset: int, length: int) -> int:
        """Copy bytes of an open file to a place in the image, by the kernel where it can.

        The kernel shares blocks (reflinks) where filesystem and alignment allow.

        Returns:
            How many bytes were copied: fewer where the source ends early.
        """
        done = 0
        while done < length:
            try:
                copied = os.copy_file_range(
                    source, self.fd, length - done, source_offset + done, offset + done
                )
            except OSError as error:
                if error.errno not in _COPY_IMPOSSIBLE:
                    raise self._failure(error) from error
                copied = self._copy_piece(source, source_offset + done, offset + done, length - done)
            if not copied:
                break
            done += copied
        return done

    def _copy_piece(self, source: int, source_offset: int, offset: int, length: int) -> int:
        with self._disk():
            piece = os.pread(source, min(length, _PIECE_BYTES), source_offset)
            self._write(piece, offset)
        return len(piece)

    def checksum(self, offset: int, length: int, algorithm: Algorithm) -> Checksum:
        """Hash what lies in a place of the image; raise `JigdofsError` where the disk fails."""
        hasher = algorithm.hasher()
        self.hash_into(hasher, offset, length)
        return Checksum(hasher.digest())

    def hash_into(self, hasher: Hasher, offset: int, length: int) -> None:
        """Feed what lies in a place of the image to a hasher; raise `JigdofsError` where the disk fails."""
        buffer = bytearray(min(length, _PIECE_BYTES) or 1)
        view = memoryview(buffer)
        with self._disk():
            while length:
                got = os.preadv(self.fd, [view[: min(length, len(view))]], offset)
                if not got:
                    break
                hasher.update(view[:got])
                offset += got
                length -= got

    def begun(self, offset: int, length: int) -> int:
        """Return how many bytes of a place were probably written before a kill: those before its first hole.

        A hint, as good as the filesystem's holes; 0 where it has none, or the place is full of something.
        """
        try:
            hole = os.lseek(self.fd, offset, os.SEEK_HOLE)
        except OSError:
            return 0
        if hole >= offset + length:
            return 0
        # the block before the hole may be half written
        begun = hole - offset - HOLE_GRAIN_BYTES
        return begun if begun >= _MIN_BEGUN_BYTES else 0

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> JigdofsError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoRoom(
                f"{self.path}: {error.strerror}; make room and run the same command again: it goes on"
                " from here"
            )
        if error.errno == errno.EFBIG:
            return NoRoom(f"{self.path}: this filesystem, or a limit, does not permit files of that size")
        return JigdofsError(f"{self.path}: {error.strerror}")
