"""Read every file of a cache and compare it with its checksum: damage that no fingerprint shows is found.

Invariants of this file:
* What is looked at is what the disk has: pages in memory are let go first, as far as the kernel does that.
* Reading changes nothing: neither which file was used last, nor what stays in the kernel's memory.
* A wrong file loses its name even if a process has it open: that touches it, so the process sees that it is
  not what it was and has it anew.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

from jigdofs.errors import CacheError
from jigdofs.format.checksum import Checksum
from jigdofs.parts.cache import Cache
from jigdofs.parts.directories import OPEN_FILE
from jigdofs.parts.object_files import StoredFile, split
from jigdofs.parts.open_file import Fingerprint
from jigdofs.parts.shelf import Shelf

_READ_BYTES = 1 << 20
_MOST_THREADS = 4
_MOST_WAITING = 256
"""Files that threads are at or will be next: each takes 1 KB, and there may be 200,000."""


class Verdict(Enum):
    """What became known of a file."""

    RIGHT = "right"
    WRONG = "wrong"
    UNKNOWN = "unknown"  # nobody noted its checksum, so nobody will use it as it is
    GONE = "gone"  # or just being written anew


@dataclass(frozen=True, slots=True)
class Finding:
    """A file, what is the matter with it, and whether it is still there.

    Attributes:
        file: it.
        verdict: on it.
        reason: why it is wrong, or why nobody can tell.
        inode: of what was read.
    """

    file: StoredFile
    verdict: Verdict
    reason: str = ""
    inode: int = 0


class Inspector:
    """Read the files of a cache.

    Args:
        shelf: the cache.
        cache: the same, open: knows the checksums that keys do not tell.

    Attributes:
        done_bytes: read so far.
    """

    def __init__(self, shelf: Shelf, cache: Cache) -> None:
        self._shelf = shelf
        self._cache = cache
        self.done_bytes = 0
        self._stopped = False

    def inspect(self, files: Iterable[StoredFile]) -> Iterator[Finding]:
        """Yield a finding for each file, some at a time in threads."""
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as threads:
            try:
                waiting: deque[Future[Finding]] = deque()
                for file in files:
                    waiting.append(threads.submit(self._look, file))
                    if len(waiting) == _MOST_WAITING:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # an interrupt: what is queued ends at once
                self._stopped = True
                threads.shutdown(cancel_futures=True)

    def remove(self, finding: Finding) -> bool:
        """Remove a wrong file; tell whether it is gone, or another one has its name."""
        try:
            if finding.inode and self._shelf.inode(finding.file) != finding.inode:
                return True
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return bool(self._cache.remove([finding.file], even_if_open=True))

    def _look(self, file: StoredFile) -> Finding:
        try:
            kind, _, name = split(file.key)
        except CacheError:
            return Finding(file, Verdict.UNKNOWN, "its name is none of ours")
        try:
            fd = self._open(file)
        except FileNotFoundError:
            return Finding(file, Verdict.GONE)
        except OSError as error:
            link = error.errno == errno.ELOOP
            return Finding(file, Verdict.WRONG, "it is a link" if link else _said(error))
        try:
            return self._judge(file, kind, name, fd)
        except OSError as error:
            return Finding(file, Verdict.WRONG, _said(error), os.fstat(fd).st_ino)
        finally:
            os.close(fd)

    def _judge(self, file: StoredFile, kind: str, name: str, fd: int) -> Finding:
        """Compare an open file with its checksum; raise `OSError`."""
        before = Fingerprint.of(fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return Finding(file, Verdict.WRONG, "it is no regular file", before.inode)
        wanted = Checksum(bytes.fromhex(name)) if kind in ("md5", "sha256") else self._cache.noted(file.key)
        if wanted is None:
            return Finding(file, Verdict.UNKNOWN, "its checksum was not noted")
        found = self._checksum(fd, wanted)
        if found is None:
            return Finding(file, Verdict.GONE)
        if found == wanted:
            return Finding(file, Verdict.RIGHT)
        written = not Fingerprint.of(fd).same_content(before)
        reason = "it is being written to" if written else "its content has another checksum"
        return Finding(file, Verdict.WRONG, reason, before.inode)

    def _open(self, file: StoredFile) -> int:
        try:
            return self._shelf.open(
                file, OPEN_FILE | os.O_NOATIME
            )  # when it was used is not when it was checked
        except PermissionError:
            return self._shelf.open(file, OPEN_FILE)

    def _checksum(self, fd: int, wanted: Checksum) -> Checksum | None:
        """Read a file from the disk; None if we are to end."""
        hasher = wanted.algorithm.hasher()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        offset = 0
        while data := os.pread(fd, _READ_BYTES, offset):
            hasher.update(data)
            offset += len(data)
            self.done_bytes += len(data)
            if self._stopped:
                return None
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return Checksum(hasher.digest())


def _said(error: OSError) -> str:
    return f"it cannot be read: {error.strerror}"
