"""When files of the cache were last used: a table of a fixed size, in a file that all processes share.

It is not kept in the files' own times: setting one changes ctime, which is to tell that somebody wrote to a
file. Several files may share a place in the table, and it may be lost: that costs the order of eviction only.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from array import array
from collections.abc import Iterable

from jigdofs.parts.directories import OPEN_FILE, open_own

_PLACES = 1 << 17
_ENTRY_BYTES = 8


class UsedTimes:
    """The table. All methods block shortly: call them from worker threads.

    Args:
        directory: the open directory of the cache.
    """

    def __init__(self, directory: int) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = open_own(directory, "used")

    def mark(self, keys: Iterable[str]) -> None:
        """Note that these files are used now."""
        now = array("Q", [time.time_ns()]).tobytes()
        with contextlib.suppress(OSError):
            for key in keys:
                os.pwrite(self._fd, now, _ENTRY_BYTES * _place(key))

    def all(self) -> UsedAt:
        """Read the table."""
        data = b""
        with contextlib.suppress(OSError):
            data = os.pread(self._fd, _ENTRY_BYTES * _PLACES, 0)
        return UsedAt(data)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1  # a thread left behind may still want to mark
        with contextlib.suppress(OSError):
            os.close(fd)


def read_used(directory: int) -> UsedAt:
    """Read the table of a cache, given its open directory, without making one."""
    with contextlib.suppress(OSError):
        fd = os.open("used", OPEN_FILE, dir_fd=directory)
        try:
            return UsedAt(os.pread(fd, _ENTRY_BYTES * _PLACES, 0))
        finally:
            os.close(fd)
    return UsedAt(b"")


class UsedAt:
    """The table as it was at one moment."""

    def __init__(self, data: bytes) -> None:
        self._times = array("Q", data[: len(data) // _ENTRY_BYTES * _ENTRY_BYTES])

    def ns(self, key: str) -> int:
        """Return when a file was last used, in ns since 1970; 0 where that is not known."""
        place = _place(key)
        return self._times[place] if place < len(self._times) else 0


def _place(key: str) -> int:
    return zlib.crc32(key.encode()) % _PLACES
