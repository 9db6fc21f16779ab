"""Whose turn it is to fetch a file: processes that share a cache need not all fetch the same one at once.

Invariants of this file:
* A turn is a lock on bytes of a file, and so ends with its process, however that ends.
* Trouble with it (no such locks, a read-only directory, the file removed) costs a transfer, never a read.
* Who fetches for a reader waits for readers' transfers only, so one in the background holds no reader up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from jigdofs.parts.directories import open_own

_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, 0
_BUSY = {errno.EAGAIN, errno.EACCES}
_HEX_DIGITS = 15  # of a key: two bytes for each must lie within 63 bits


class Turns:
    """The turns as one process sees them. No method waits.

    Args:
        directory: the open directory of the cache.
    """

    def __init__(self, directory: int) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = open_own(directory, "turns")

    def take(self, key: str, *, for_a_reader: bool) -> bool:
        """Take the turn for a file; tell whether it is ours, or cannot be told to be anybody's."""
        if self._fd < 0:
            return True
        at = _place(key)
        try:
            if for_a_reader:
                self._lock(fcntl.F_WRLCK, at, 1)
            else:
                self._lock(fcntl.F_WRLCK, at, 2)
                self._lock(fcntl.F_UNLCK, at, 1)
        except OSError as error:
            return error.errno not in _BUSY
        return True

    def leave(self, key: str) -> None:
        """Give the turn for a file back."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            self._lock(fcntl.F_UNLCK, _place(key), 2)

    def close(self) -> None:
        """Give all turns back."""
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1

    def _lock(self, kind: int, at: int, count: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, at, count, 0))


def _place(key: str) -> int:
    """Return the first of a key's two bytes: one for readers, and one for the background."""
    return 2 * int(key.partition("-")[2][:_HEX_DIGITS], 16)
