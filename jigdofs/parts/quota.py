"""Hold the cache's quota: reserve, evict what was used least recently, spare what is open or pinned.

The accounts lie in the index, shared by all processes. To spare a transaction per part, a process
gets a grant of some size and reserves from it by itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from jigdofs.errors import CacheError
from jigdofs.parts.index import Index, IndexTrouble, Texts
from jigdofs.parts.ledger import Ledger
from jigdofs.parts.manifests import Pinned
from jigdofs.parts.object_files import StoredFile, stored_files
from jigdofs.parts.removal import Removal, remove_unused, unlink
from jigdofs.parts.sessions import Sessions
from jigdofs.parts.used import UsedTimes

_log = logging.getLogger(__name__)
_GRANT_BYTES = 32 << 20
_GRANT_SHARE = 16  # of the limit: small caches are not to be granted away to the first who asks
_SLACK_SHARE = 10  # evicted beyond the need, so that the next part does not list everything again
_LEDGER = "ledger"
# accounts that somebody holds, who may be stopped: each try takes 2 s, and readers wait in a row
_LEFT_ALONE_S = 10.0
_IN_VAIN_SHARE = 10
_LONG_S = 0.05
"""Where that takes long, a tenth of the time goes into looking for room where all is open or pinned."""


def row_key(key: str) -> str:
    """Name a file's row in the index."""
    return f"file:{key}"


class Stock(NamedTuple):
    """What a cache holds, in bytes.

    Attributes:
        used: by finished files; None where nobody has accounted for any yet.
        limit: how much they may be; None for as much as the filesystem takes.
        free: on its filesystem.
        min_free: what is to stay free there.
    """

    used: int | None
    limit: int | None
    free: int
    min_free: int


class Quota:
    """The accounts of a cache as one process sees them. Blocks: call it from worker threads.

    Attributes:
        evicted_files: how many this process has removed to make room.
        evicted_bytes: the same in bytes.

    Args:
        objects: the directory whose files are counted, open; it stays the caller's.
        index: where the accounts are kept.
        sessions: whose grants still count.
        used: when files were last used.
        pinned: tells what is never evicted.
        max_bytes: the quota, or None for none.
        min_free_bytes: what must stay free on the filesystem.
    """

    def __init__(
        self,
        objects: int,
        index: Index,
        sessions: Sessions,
        used: UsedTimes,
        pinned: Callable[[], Pinned],
        *,
        max_bytes: int | None,
        min_free_bytes: int,
    ) -> None:
        self._objects = objects
        self._index = index
        self._sessions = sessions
        self._used = used
        self._pinned = pinned
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        # `_lock` is held for moments, also by the index's thread: never wait for the index with it.
        # `_asking` lets one thread ask at a time, and is never taken by the index's thread.
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._granted = 0  # of our grant, not reserved by anything
        self._not_before = 0.0
        self._no_room_before = 0.0
        self._written = 0  # finished since the accounts were last settled
        self.evicted_files = self.evicted_bytes = 0

    def limit(self, max_bytes: int | None, min_free_bytes: int) -> None:
        """Hold other limits from now on, removing what is beyond them and not in use; raise `CacheError`."""
        self._max_bytes, self._min_free_bytes = max_bytes, min_free_bytes

        def shrink(texts: Texts) -> None:
            with self._lock:
                written, self._written = self._written, 0
            ledger = self._load(texts).settle(self._sessions.own, written=written)
            if ledger.used + ledger.granted > self._limit(ledger.used):
                ledger = self._evict(texts, ledger, 0)
            texts.set(_LEDGER, ledger.dump())

        try:
            self._index.atomically(shrink)
        except (IndexTrouble, OSError) as error:
            raise CacheError(f"the cache's accounts cannot be read: {error}") from error

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

    def stock(self) -> Stock:
        """Tell what the cache holds; raise `OSError` or `IndexTrouble`."""
        status = os.fstatvfs(self._objects)
        text = self._index.get(_LEDGER)
        used = None
        if text:
            with contextlib.suppress(ValueError, RecursionError):
                used = Ledger.parse(text).used + self._written
        return Stock(used, self._max_bytes, status.f_bavail * status.f_frsize, self._min_free_bytes)

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
        if granted is None and evict and time.monotonic() >= self._no_room_before:
            began = time.monotonic()
            ledger = self._evict(texts, ledger, need)
            granted = ledger.grant(own, size, self._limit(ledger.used))
            took = time.monotonic() - began
            if granted is None and took > _LONG_S:
                self._no_room_before = began + _IN_VAIN_SHARE * took
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
        return sum(file.size for file in self.files())

    def files(self) -> Iterator[StoredFile]:
        """Yield every file of the cache."""
        return stored_files(self._objects, self._used.all())

    def _evict(self, texts: Texts, ledger: Ledger, need: int) -> Ledger:
        """Remove the least recently used files that are neither open nor pinned until `need` bytes fit.

        Within the transaction: a file that another process accounts for between our count and our
        note of it would be lost from the accounts.
        """
        files = sorted(self.files())
        pinned = self._pinned()
        used = sum(file.size for file in files)
        removed = 0
        for file in files:
            limit = self._limit(used)
            slack = limit // _SLACK_SHARE if need < limit // 2 else 0
            if used + ledger.granted + need + slack <= limit:
                break
            if pinned and pinned.has(file.kind, file.name):
                continue
            if remove_unused(self._objects, file) is not Removal.STAYS:
                texts.delete(row_key(file.key))
                used -= file.size
                removed += 1
                self.evicted_files += 1
                self.evicted_bytes += file.size
        _log.debug("evicted %d files", removed)
        return ledger.recount(used)

    def excess(self, used: int) -> int:
        """Return by how many bytes there is more than may be, given how much there is; below 0 if less."""
        try:
            granted = self._index.atomically(lambda texts: self._load(texts).granted)
        except IndexTrouble as error:
            _log.info("%s", error)
            granted = 0
        return used + granted - self._limit(used)

    def remove(self, files: Sequence[StoredFile], *, even_if_open: bool = False) -> list[StoredFile]:
        """Remove files unless some process has them open; return those that are gone.

        Args:
            files: some hundred at most, as nobody else can use the accounts meanwhile.
            even_if_open: what is wrong with them is worse; whoever has one open sees that it was touched.
        """
        remove = partial(unlink if even_if_open else remove_unused, self._objects)
        became: dict[StoredFile, Removal] = {}

        def work(texts: Texts) -> None:
            ledger = self._load(texts)
            became.update((file, remove(file)) for file in files)
            for file, removal in became.items():
                if removal is not Removal.STAYS:
                    texts.delete(row_key(file.key))
            removed = sum(file.size for file, removal in became.items() if removal is Removal.REMOVED)
            texts.set(_LEDGER, ledger.recount(max(0, ledger.used - removed)).dump())

        try:
            self._index.atomically(work)
        except IndexTrouble as error:  # on a full disk, for instance; whoever evicts counts again
            _log.info("%s", error)
            became.update((file, remove(file)) for file in files)
        return [file for file, removal in became.items() if removal is not Removal.STAYS]
