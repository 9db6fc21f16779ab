"""A file being written: hashed as it grows, and never without a place to be.

The first place is the cache; where that is full or broken, a temporary directory; at last, a little
memory. What does not lie in the cache is served all the same and forgotten when it is closed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Protocol

from jigdofs.errors import CacheError, NoRoom
from jigdofs.format.checksum import Checksum, Hasher
from jigdofs.parts.open_file import Fingerprint, OpenFile

_log = logging.getLogger(__name__)
_COPY_BYTES = 1 << 20


class Spoilt(CacheError):
    """Say that somebody else wrote to a file before it was kept: what is in it now, nobody has verified."""


class Place(Protocol):
    """Somewhere a spool can be written to."""

    def create(self, length: int) -> int:
        """Return a new empty file, open for reading and writing; raise `OSError` or `CacheError`."""

    def keep(self, fd: int) -> None:
        """Make the file permanent: its content is complete and right."""

    def abandon(self, fd: int) -> None:
        """Forget the file; the descriptor stays the caller's."""


class TemporaryPlace:
    """An unlinked file in the temporary directory: room for what the cache cannot take."""

    def create(self, length: int) -> int:
        """Make a file that vanishes when it is closed."""
        if length > temporary_room_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir())
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())

    def keep(self, fd: int) -> None:
        """Keep nothing: the file lives as long as it is open."""

    def abandon(self, fd: int) -> None:
        """Have nothing to forget."""


def temporary_room_bytes() -> int:
    """Return how much the temporary directory takes."""
    status = os.statvfs(tempfile.gettempdir())
    return status.f_bavail * status.f_frsize


class MemoryPlace:
    """A little memory, so that small parts can be read when no disk takes them.

    Args:
        max_bytes: for all such files together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        self._files: dict[int, int] = {}  # inode -> length

    def create(self, length: int) -> int:
        """Make a file in memory if there is room."""
        with self._lock:
            self._forget_closed()
            if sum(self._files.values()) + length > self._max_bytes:
                raise OSError(errno.ENOSPC, "nor in memory")
            fd = os.memfd_create("jigdofs", os.MFD_CLOEXEC)
            self._files[os.fstat(fd).st_ino] = length
            return fd

    def _forget_closed(self) -> None:
        alive = set()
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError, ValueError):
                alive.add(os.fstat(int(name)).st_ino)
        self._files = {inode: length for inode, length in self._files.items() if inode in alive}

    def keep(self, fd: int) -> None:
        """Keep nothing: the file lives as long as it is open."""

    def abandon(self, fd: int) -> None:
        """Have nothing to forget."""


class Spool:
    """Write one file and check it. All methods block: they are called from worker threads.

    Args:
        length: what the file must have in the end.
        places: where it may lie, best first.
        hasher: makes a new hasher of the algorithm that decides.
    """

    def __init__(self, length: int, places: tuple[Place, ...], hasher: Callable[[], Hasher]) -> None:
        self.length = length
        self.received = 0
        self._places = list(places)
        self._new_hasher = hasher
        self._hasher = hasher()
        self._fd = -1
        self._seen: Fingerprint | None = None  # after our last write, where others could write, too

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; raise `CacheError` where no place takes them."""
        view = memoryview(data)
        if self.received + len(view) > self.length:
            raise ValueError("more bytes than the file may have")
        if self._fd < 0:
            self._next_place()
        self._check_untouched()
        self._hasher.update(view)
        while view:
            try:
                written = os.pwrite(self._fd, view, self.received)
            except OSError as error:
                self._move(error)
                continue
            self.received += written
            view = view[written:]
        self._look()

    def _look(self) -> None:
        """Keep in mind what the file is like, unless it has no name by which others could open it."""
        status = os.fstat(self._fd)
        self._seen = Fingerprint.of_status(status) if status.st_nlink else None

    def _check_untouched(self) -> None:
        if self._seen is not None and Fingerprint.of(self._fd) != self._seen:
            raise Spoilt("a file that was being written was changed by something else")

    def restart(self) -> None:
        """Forget what was written."""
        self.received = 0
        self._hasher = self._new_hasher()

    def checksum(self) -> Checksum:
        """Return the checksum of what was written so far."""
        return Checksum(self._hasher.digest())

    def finish(self) -> OpenFile:
        """Keep the file; its checksum was found right. The spool is done with."""
        if self._fd < 0:
            self._next_place()  # an empty file
        self._check_untouched()
        size = os.fstat(self._fd).st_size
        if size < self.received:
            raise Spoilt("a file that was being written became shorter")
        if size > self.received:
            os.ftruncate(self._fd, self.received)  # an attempt before this one was longer
        before = Fingerprint.of(self._fd)
        try:
            self._places[0].keep(self._fd)
        except (OSError, CacheError) as error:
            _log.warning("cannot keep a file in the cache: %s", error)
            self._places[0].abandon(self._fd)
        now = Fingerprint.of(self._fd)
        if not now.same_content(before):  # it has a name by now
            raise Spoilt("a file was changed by something else while it was kept")
        file = OpenFile(self._fd, now)
        self._fd = -1
        return file

    def abandon(self) -> None:
        """Leave nothing behind; harmless after `finish`."""
        if self._fd >= 0:
            self._places[0].abandon(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _next_place(self) -> None:
        """Create the file in the first place that takes it."""
        problem: Exception | None = None
        while self._places:
            try:
                self._fd = self._places[0].create(self.length)
            except (OSError, CacheError) as error:
                problem = error
                self._places.pop(0)
            else:
                self._look()
                return
        raise NoRoom(
            f"no room for {self.length} bytes, neither in the cache nor in the temporary directory (TMPDIR):"
            f" {problem}"
        )

    def _move(self, error: OSError) -> None:
        """Go on in the next place that takes what was written so far."""
        old, place = self._fd, self._places.pop(0)
        self._fd = -1
        _log.info("%s takes no more: %s", type(place).__name__, error.strerror)
        try:
            while True:
                self._next_place()
                try:
                    _copy(old, self._fd, self.received)
                except OSError as again:
                    _log.info("%s takes no more: %s", type(self._places[0]).__name__, again.strerror)
                    self.abandon()
                    self._places.pop(0)
                else:
                    self._look()
                    return
        finally:
            place.abandon(old)
            os.close(old)


def _copy(source: int, target: int, length: int) -> None:
    """Copy the first bytes of a file; raise `OSError` if the target takes no more."""
    done = 0
    while done < length:
        piece = memoryview(os.pread(source, min(_COPY_BYTES, length - done), done))
        if not piece:
            raise Spoilt("a file that was being written became shorter")
        while piece:
            written = os.pwrite(target, piece, done)
            piece = piece[written:]
            done += written
