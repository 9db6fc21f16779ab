"""A cache directory looked at from outside: nothing is made, marked as used or locked by looking.

Invariant of this file: no link is followed, whatever lies in the directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jigdofs.errors import CacheError
from jigdofs.parts.directories import OPEN_DIRECTORY, check_no_other, check_ours, opened
from jigdofs.parts.manifests import Manifests
from jigdofs.parts.object_files import StoredFile, stored_files
from jigdofs.parts.sessions import is_running
from jigdofs.parts.used import read_used

_DAMAGED = ("index.damaged", "scanned.db.damaged")
_OF_ITSELF = ("index", "images", "used", "turns", "scanned.db", *_DAMAGED)
_LOCKS = "/proc/locks"
_SESSION_CHARACTERS = 16  # a name that is just being made is longer


class Leftover(NamedTuple):
    """What a daemon that was killed left behind, or a damaged database: a name below a directory."""

    directory: str
    name: str
    size: int


class Shelf:
    """A cache directory that exists.

    Attributes:
        directory: its path.
        manifests: what is known of images.

    Args:
        directory: its path.
        fd: the same, open; it stays the caller's.
    """

    def __init__(self, directory: Path, fd: int) -> None:
        self.directory = directory
        self.manifests = Manifests(fd, may_write=False)
        self._fd = fd

    def files(self) -> list[StoredFile]:
        """Return every file of the cache."""
        try:
            with opened(self._fd, "objects") as objects:
                return list(stored_files(objects, read_used(self._fd)))
        except OSError:
            return []

    def open(self, file: StoredFile, flags: int) -> int:
        """Open one of its files; raise `OSError`."""
        with (
            opened(self._fd, "objects") as objects,
            opened(objects, file.kind) as outer,
            opened(outer, file.shard) as inner,
        ):
            return os.open(file.name, flags, dir_fd=inner)

    def inode(self, file: StoredFile) -> int:
        """Return the number of what has a file's name now; raise `OSError`."""
        with (
            opened(self._fd, "objects") as objects,
            opened(objects, file.kind) as outer,
            opened(outer, file.shard) as inner,
        ):
            return os.stat(file.name, dir_fd=inner, follow_symlinks=False).st_ino

    def free_bytes(self) -> int:
        """Return how much is free on its filesystem, for us."""
        status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def in_flight_bytes(self) -> int:
        """Return how much is being written, as far as it has names."""
        return sum(size for name, size in self._sizes("incoming") if not self._is_left(name))

    def own_bytes(self) -> int:
        """Return what its databases, tables and manifests take."""
        return sum(self._size_of(name) for name in _OF_ITSELF)

    def leftovers(self) -> list[Leftover]:
        """Return what nobody will ask for any more."""
        left = [
            Leftover("incoming", name, size) for name, size in self._sizes("incoming") if self._is_left(name)
        ]
        with contextlib.suppress(OSError), opened(self._fd, "sessions") as sessions:
            names = (name for name in os.listdir(sessions) if len(name) == _SESSION_CHARACTERS)
            left += [Leftover("sessions", name, 0) for name in names if not is_running(sessions, name)]
        there = (name for name in _DAMAGED if self._status(name) is not None)
        return left + [Leftover("", name, self._size_of(name)) for name in there]

    def remove(self, leftover: Leftover) -> None:
        """Remove one; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            if not leftover.directory:
                self._remove_tree(leftover.name)
                return
            with opened(self._fd, leftover.directory) as directory:
                os.unlink(leftover.name, dir_fd=directory)

    def unlocked(self, files: Sequence[StoredFile]) -> list[StoredFile]:
        """Return those of these files that no process seems to have open: only locks are looked at."""
        locked = _locked()
        found = []
        for file in files:
            with contextlib.suppress(OSError):
                if self.inode(file) not in locked:
                    found.append(file)
        return found

    def _remove_tree(self, name: str) -> None:
        status = self._status(name)
        if status is not None and stat.S_ISDIR(status.st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=self._fd)
        else:
            os.unlink(name, dir_fd=self._fd)

    def _is_left(self, name: str) -> bool:
        """Tell whether a file under `incoming/` is none of a running session."""
        with contextlib.suppress(OSError), opened(self._fd, "sessions") as sessions:
            return not is_running(sessions, name.partition("-")[0])
        return False

    def _status(self, name: str) -> os.stat_result | None:
        with contextlib.suppress(OSError):
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        return None

    def _size_of(self, name: str) -> int:
        status = self._status(name)
        if status is None:
            return 0
        if stat.S_ISDIR(status.st_mode):
            return sum(size for _, size in self._sizes(name))
        return status.st_size

    def _sizes(self, name: str) -> list[tuple[str, int]]:
        """Return the files in one directory of the cache."""
        found = []
        with contextlib.suppress(OSError), opened(self._fd, name) as directory:
            for entry in os.listdir(directory):
                with contextlib.suppress(OSError):
                    status = os.stat(entry, dir_fd=directory, follow_symlinks=False)
                    found.append((entry, status.st_size))
        return found


@contextlib.contextmanager
def looking_at(directory: Path) -> Iterator[Shelf | None]:
    """Have a cache open to look at; None where there is none.

    Raises:
        UnsafeCache: others can write to it, or it is something else.
        CacheError: it cannot be looked at.
    """
    try:
        fd = os.open(directory, OPEN_DIRECTORY & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise CacheError(f"cache {directory} cannot be used: {error.strerror}") from error
    try:
        check_ours(directory, os.fstat(fd))
        check_no_other(directory, os.listdir(fd))
        shelf = Shelf(directory, fd)
        try:
            yield shelf
        finally:
            shelf.manifests.close()
    finally:
        os.close(fd)


def _locked() -> set[int]:
    """Return the inodes that some process has locked, as far as the kernel tells (proc_locks(5))."""
    found = set()
    with contextlib.suppress(OSError), open(_LOCKS, encoding="ascii", errors="replace") as lines:
        for line in lines:
            fields = line.split()
            if "FLOCK" in fields[1:3]:
                with contextlib.suppress(ValueError, IndexError):
                    found.add(int(fields[5].rpartition(":")[2]))
    return found
