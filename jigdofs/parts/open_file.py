"""Open verified files: who uses them, how many stay open, and whether they are still what they were."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import NamedTuple


class Fingerprint(NamedTuple):
    """What tells that a file was not touched since it was verified.

    Attributes:
        size: bytes.
        mtime_ns: when it was last written to, as anybody may set it.
        inode: its number.
        changed_ns: ctime, which nobody can set: what gives a file its old mtime back changes it.
    """

    size: int
    mtime_ns: int
    inode: int
    changed_ns: int = 0

    @classmethod
    def of(cls, fd: int) -> Fingerprint:
        """Take the fingerprint of an open file."""
        return cls.of_status(os.fstat(fd))

    @classmethod
    def of_status(cls, status: os.stat_result) -> Fingerprint:
        """Take the fingerprint of a file that was just looked at."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)

    def same_content(self, other: Fingerprint) -> bool:
        """Tell whether nothing was written, as far as mtime says: a new name changes ctime, too."""
        return self[:3] == other[:3]


class OpenFile:
    """A verified file, or a verified stretch of one, closed when it is discarded and nobody has it pinned.

    Attributes:
        fetched_s: when it was fetched from a mirror, by trio's clock; long ago if it was here already.

    Args:
        fd: its descriptor, now owned by this.
        fingerprint: of the whole file, taken before it was verified.
        start: where the stretch begins.
        length: of the stretch; None for the whole file.
    """

    __slots__ = ("_discarded", "_fingerprint", "_pins", "fd", "fetched_s", "size", "start")

    def __init__(
        self,
        fd: int,
        fingerprint: Fingerprint,
        *,
        start: int = 0,
        length: int | None = None,
    ) -> None:
        self.fd = fd
        self.start = start
        self.fetched_s = -math.inf
        self.size = fingerprint.size if length is None else length
        self._fingerprint = fingerprint
        self._pins = 0
        self._discarded = False

    def unchanged(self) -> bool:
        """Tell whether nobody wrote to it since it was verified; asked for every read, so kept short."""
        status = os.fstat(self.fd)
        now = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
        return now == self._fingerprint

    def pin(self) -> None:
        """Keep the descriptor open across an await."""
        self._pins += 1

    def unpin(self) -> None:
        """Undo one `pin`."""
        self._pins -= 1
        if self._discarded and not self._pins:
            os.close(self.fd)

    def discard(self) -> None:
        """Close the descriptor, now or when the last pin goes."""
        if self._discarded:
            return
        self._discarded = True
        if not self._pins:
            os.close(self.fd)


class OpenFiles:
    """The files that stay open between reads, least recently used first to go.

    Args:
        max_files: how many at most.
        max_bytes: how many bytes they may hold together; an open file cannot be evicted from the
            cache, so this must stay well below the cache's quota. One file may always stay.
    """

    def __init__(self, max_files: int, max_bytes: int) -> None:
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._files: dict[str, OpenFile] = {}
        self._bytes = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._files)

    def get(self, key: str) -> OpenFile | None:
        """Return an open file that nobody touched; forget it if somebody did."""
        file = self._files.pop(key, None)
        if file is None:
            return None
        if not file.unchanged():
            self._bytes -= file.size
            file.discard()
            return None
        self._files[key] = file  # now the most recently used
        return file

    def add(self, key: str, file: OpenFile) -> None:
        """Keep a file open; it takes the place of another one of that key."""
        self.drop(key)
        self._files[key] = file
        self._bytes += file.size
        self._drop_beyond()

    def limit(self, max_files: int, max_bytes: int) -> None:
        """Keep so much open at most from now on."""
        self._max_files, self._max_bytes = max_files, max_bytes
        self._drop_beyond()

    def _drop_beyond(self) -> None:
        while len(self._files) > 1 and (len(self._files) > self._max_files or self._bytes > self._max_bytes):
            self.drop(next(iter(self._files)))

    def drop(self, key: str) -> None:
        """Stop keeping a file open."""
        file = self._files.pop(key, None)
        if file is not None:
            self._bytes -= file.size
            self._dropped += 1
            file.discard()

    def present(self, keys: Iterable[str]) -> set[str]:
        """Return those keys whose files are open; any thread may ask."""
        return {key for key in keys if key in self._files}

    def generation(self) -> int:
        """Return a number that is another one when files were dropped since."""
        return self._dropped

    def close(self) -> None:
        """Stop keeping any file open."""
        for key in list(self._files):
            self.drop(key)
