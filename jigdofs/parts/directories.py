"""Directories of the cache, entered link by link: whatever lies in one, nothing leads out of it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from jigdofs.errors import CacheError, UnsafeCache

_OUR_NAMES = frozenset(
    "CACHEDIR.TAG index objects sessions incoming used turns images"
    " scanned.db scanned.db-journal scanned.db.damaged".split()
)
_FOREIGN_ALLOWED = frozenset({"lost+found"})
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Neither a link nor a FIFO in the place of a file leads astray or holds us up."""


def make_private(directory: Path) -> None:
    """Make the cache's own directory; raise `UnsafeCache` if it is not fit for that."""
    try:
        _make(directory, 0o700)
        status = os.stat(directory)
    except OSError as error:
        raise CacheError(f"cache {directory} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise CacheError(f"cache {directory} is no directory")
    check_ours(directory, status)
    if not os.access(directory, os.W_OK):
        raise CacheError(f"cache {directory} cannot be written to")
    check_no_other(directory, os.listdir(directory))


def check_no_other(directory: Path, names: Iterable[str]) -> None:
    """Raise `UnsafeCache` if these names in a directory are those of something else than a cache."""
    found = set(names)
    if found - _FOREIGN_ALLOWED and found.isdisjoint(_OUR_NAMES):
        raise UnsafeCache(f"cache {directory} holds other things; name a directory of its own")


def _make(directory: Path, mode: int) -> None:
    """Make a directory and what it lies in: nothing that others can write to, whatever the umask is."""
    with contextlib.suppress(FileExistsError):  # what it is the caller sees
        try:
            directory.mkdir(mode)
        except FileNotFoundError:
            _make(directory.parent, 0o755)
            directory.mkdir(mode)


def check_ours(directory: Path | str, status: os.stat_result) -> None:
    """Raise `UnsafeCache` if a directory of the cache belongs to another user, or others can write to it.

    To be asked of what was opened, too: who can write to what the cache lies in can put another in its place.
    """
    if status.st_uid != os.geteuid():
        raise UnsafeCache(
            f"cache {directory} belongs to another user (uid {status.st_uid}); choose another --cache-dir"
        )
    if status.st_mode & 0o022:
        raise UnsafeCache(f"cache {directory} can be written by others; `chmod go-w {directory}' first")


def make_inside(directory: Path) -> None:
    """Make a directory of the cache; raise `CacheError` if something else is in its place."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not stat.S_ISDIR(os.lstat(directory).st_mode):
        raise CacheError(f"{directory} is no directory; remove it")


@contextlib.contextmanager
def opened(parent: int, name: str, *, make: bool = False) -> Iterator[int]:
    """Have a directory within an open one open for a while, as `open_inside` does."""
    directory = open_inside(parent, name, make=make)
    try:
        yield directory
    finally:
        os.close(directory)


def open_inside(parent: int, name: str, *, make: bool = False) -> int:
    """Open a directory within an open one; make it, in the place of anything else, if asked to.

    Raises:
        OSError: it does not exist, or is no directory.
    """
    try:
        return os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    except OSError:
        if not make:
            raise
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    return os.open(name, OPEN_DIRECTORY, dir_fd=parent)


def open_own(directory: int, name: str) -> int:
    """Open a file of the cache itself for reading and writing, a new one in the place of anything else.

    Raises:
        OSError: it can be neither opened nor made.
    """
    flags = OPEN_FILE | os.O_RDWR
    with contextlib.suppress(OSError):
        fd = os.open(name, flags, dir_fd=directory)
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:  # else it is somebody's by another name
            return fd
        os.close(fd)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
