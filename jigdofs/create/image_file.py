"""The image that a template is made from, and whether it stays as it is meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from jigdofs.errors import InputError, SourceChanged
from jigdofs.parts.open_file import Fingerprint
from jigdofs.sources.piece import fingerprint_of


@contextmanager
def open_image(name: str) -> Iterator[ImageFile]:
    """Open a regular file or a block device.

    Raises:
        InputError: it cannot be opened, or is something else.
    """
    try:
        # without waiting for whoever writes to a pipe
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISDIR(kind):
            raise InputError(f"{name}: is a directory, not an image")
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise InputError(f"{name}: is neither a file nor a disk; what comes through a pipe is --image=-")
        yield ImageFile(fd, name)
    finally:
        os.close(fd)


class ImageFile:
    """An open image.

    Args:
        fd: open for reading; it stays the caller's.
        name: for messages.

    Raises:
        InputError: it cannot be sought in.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        try:
            self.length = os.lseek(fd, 0, os.SEEK_END)
            self._status = self._seen()
        except OSError as error:
            raise InputError(f"{name}: cannot be read from any place: {error.strerror}") from error

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self._status[0]

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that lie within the image.

        Raises:
            SourceChanged: they cannot be read, or are gone.
        """
        try:
            data = os.pread(self._fd, length, offset)
        except OSError as error:
            raise SourceChanged(f"{self.name}: cannot be read at byte {offset}: {error.strerror}") from error
        if len(data) != length:
            raise SourceChanged(f"{self.name}: became shorter while it was read; try again")
        return data

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill a buffer with bytes that lie within the image; raise `SourceChanged` as `read` does."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise SourceChanged(
                    f"{self.name}: cannot be read at byte {offset + done}: {error.strerror}"
                ) from error
            if not count:
                raise SourceChanged(f"{self.name}: became shorter while it was read; try again")
            done += count

    def check_unchanged(self) -> None:
        """Raise `SourceChanged` if somebody wrote to the image since it was opened."""
        if self._seen() != self._status:
            raise SourceChanged(f"{self.name}: was changed while it was read; nothing is written, try again")

    def _seen(self) -> tuple[tuple[int, int], Fingerprint]:
        status = os.fstat(self._fd)
        return (status.st_dev, status.st_ino), fingerprint_of(status)
