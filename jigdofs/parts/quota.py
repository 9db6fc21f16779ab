"""Hold the cache's quota: reserve before writing, evict the least recently used, spare what is open.

The accounts lie in the index, shared by all processes. To spare a transaction per part, a process
gets a grant of some size and reserves from it by itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from jigdofs.errors import CacheError
from jigdofs.parts.directories import OPEN_FILE, opened
from jigdofs.parts.index import Index, IndexTrouble, Texts
from jigdofs.parts.ledger import Ledger
from jigdofs.parts.sessions import Sessions
from jigdofs.parts.used import UsedTimes

_log = logging.getLogger(__name__)
_GRANT_BYTES = 32 << 20
_GRANT_SHARE = 16  # of the limit: small caches are not to be granted away to the first who asks
_SLACK_SHARE = 10  # evicted beyond the need, so that the next part does not list everything again
_LEDGER = "ledger"
_LEFT_ALONE_S = (
    10.0  # accounts that somebody holds, who may be stopped: each try takes 2 s, and readers wait in a row
)


def row_key(key: str) -> str:
    """Name a file's row in the index."""
    return f"file:{key}"


class _File(NamedTuple):
    """A file as eviction sees it: used least recently first."""

    used_ns: int
    size: int
    kind: str
    shard: str
    name: str


class Quota:
    """The accounts of a cache as one process sees them. Blocks: call it from worker threads.

    Args:
        objects: the directory whose files are counted, open; it stays the caller's.
        index: where the accounts are kept.
        sessions: whose grants still count.
        used: when files were last used.
        max_bytes: the quota, or None for none.
        min_free_bytes: what must stay free on the filesystem.
    """

    def __init__(
        self,
        objects: int,
        index: Index,
        sessions: Sessions,
        used: UsedTimes,
        *,
        max_bytes: int | None,
        min_free_bytes: int,
    ) -> None:
        self._objects = objects
        self._index = index
        self._sessions = sessions
        self._used = used
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        # `_lock` is held for moments, also by the index's thread: never wait for the index with it.
        # `_asking` lets one thread ask at a time, and is never taken by the index's thread.
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._granted = 0  # of our grant, not reserved by anything
        self._not_before = 0.0
        self._written = 0  # finished since the accounts were last settled

    def reserve(self, length: int, *, evict: bool = True) -> None:
        """Make sure `length` bytes may be written; raise `CacheError` where the quota forbids.

        Args:
            length: in bytes.
            evict: remove what is not in use, if need be.
        """
        if self._max_bytes is not None and length > self._max_bytes:
            raise CacheError(f"{length} bytes are more than the whole cache may have")
        with self._asking:
            with self._lock:
                missing = length - self._granted
                if missing <= 0:
                    self._granted -= length
                    return
            more = self._ask(missing, evict=evict)
            with self._lock:
                self._granted += more - length

    def release(self, length: int) -> None:
        """Give back a reservation that was not used."""
        with self._lock:
            self._granted += length

    def written(self, length: int) -> None:
        """Note that reserved bytes became a file."""
        with self._lock:
            self._written += length

    def settle(self, texts: Texts) -> None:
        """Bring the accounts up to date, within a transaction of the index."""
        with self._lock:
            written, self._written = self._written, 0
        if written:
            texts.set(_LEDGER, self._load(texts).settle(self._sessions.own, written=written).dump())

    def close(self) -> None:
        """Give the grant back."""

        def give_back(texts: Texts) -> None:
            self.settle(texts)
            ledger = self._load(texts)
            texts.set(_LEDGER, ledger.keep(set(ledger.grants) - {self._sessions.own}).dump())

        self._index.atomically(give_back)

    def _ask(self, need: int, *, evict: bool) -> int:
        """Get a grant for `need` bytes or more; evict if it must be and may be."""
        if time.monotonic() < self._not_before:
            raise CacheError("the cache's accounts could not be read just now")
        try:
            size = self._index.atomically(lambda texts: self._grant(texts, need, evict=evict))
        except (IndexTrouble, OSError) as error:
            self._not_before = time.monotonic() + _LEFT_ALONE_S
            raise CacheError(f"the cache's accounts cannot be read: {error}") from error
        if size is None and not evict:
            raise CacheError("the cache is full")
        if size is None:
            raise CacheError(f"the cache has no room for {need} bytes: the rest of it is in use")
        return size

    def _grant(self, texts: Texts, need: int, *, evict: bool) -> int | None:
        """Grant ourselves `need` bytes, and some to spare if they fit; None if not even those do."""
        own = self._sessions.own
        with self._lock:
            written, self._written = self._written, 0
        ledger = self._load(texts).settle(own, written=written)
        limit = self._limit(ledger.used)
        size = max(need, min(_GRANT_BYTES, limit // _GRANT_SHARE))
        granted = ledger.grant(own, size, limit)
        if granted is None:
            size = need
            granted = ledger.grant(own, size, limit)
        if granted is None and evict:
            ledger = self._evict(texts, ledger, need)
            granted = ledger.grant(own, size, self._limit(ledger.used))
        texts.set(_LEDGER, (granted or ledger).dump())
        return size if granted is not None else None

    def _limit(self, used: int) -> int:
        """Return how many bytes the cache may have, given how many it has."""
        status = os.fstatvfs(self._objects)
        by_disk = used + status.f_bavail * status.f_frsize - self._min_free_bytes
        return by_disk if self._max_bytes is None else min(self._max_bytes, by_disk)

    def _load(self, texts: Texts) -> Ledger:
        """Read the accounts; count the files again if they are unreadable or somebody was killed."""
        text = texts.get(_LEDGER)
        try:
            ledger = Ledger.parse(text) if text else None
        except (ValueError, RecursionError):
            ledger = None
        if ledger is None:
            return Ledger(self._count())
        running = {session for session in ledger.grants if self._sessions.running(session)}
        if running != set(ledger.grants):  # it may have written files it did not account for
            return ledger.keep(running).recount(self._count())
        return ledger

    def _count(self) -> int:
        return sum(file.size for file in self._files())

    def _files(self) -> Iterator[_File]:
        """Yield every file; no link is followed, whatever lies in the directory."""
        used = self._used.all()
        for kind in _names(self._objects):
            with contextlib.suppress(OSError), opened(self._objects, kind) as outer:
                for shard in _names(outer):
                    with contextlib.suppress(OSError), opened(outer, shard) as inner:
                        for name in _names(inner):
                            with contextlib.suppress(OSError):
                                status = os.stat(name, dir_fd=inner, follow_symlinks=False)
                                used_ns = max(status.st_atime_ns, used.ns(f"{kind}-{name}"))
                                yield _File(used_ns, status.st_size, kind, shard, name)

    def _evict(self, texts: Texts, ledger: Ledger, need: int) -> Ledger:
        """Remove the least recently used files that nobody has open until `need` bytes fit.

        Within the transaction: a file that another process accounts for between our count and our
        note of it would be lost from the accounts.
        """
        files = sorted(self._files())
        used = sum(file.size for file in files)
        removed = 0
        for file in files:
            limit = self._limit(used)
            slack = limit // _SLACK_SHARE if need < limit // 2 else 0
            if used + ledger.granted + need + slack <= limit:
                break
            if self._remove_unused(file):
                texts.delete(row_key(f"{file.kind}-{file.name}"))
                used -= file.size
                removed += 1
        _log.debug("evicted %d files", removed)
        return ledger.recount(used)

    def _remove_unused(self, file: _File) -> bool:
        """Remove a file unless some process has it open."""
        try:
            with opened(self._objects, file.kind) as outer, opened(outer, file.shard) as inner:
                return _remove_unused(inner, file.name)
        except OSError:
            return False


def _names(directory: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(directory)
    return []


def _remove_unused(directory: int, name: str) -> bool:
    """Unlink a file unless some process has it open (it holds a shared lock then)."""
    try:
        fd = os.open(name, OPEN_FILE, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a symlink: none of ours
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
        return error.errno in (errno.ENOENT, errno.ELOOP)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
