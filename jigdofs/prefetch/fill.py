"""Fetch parts in the background, below every reader.

Invariants of this file:
* What a list says is fetched first, and alongside of readers, to whom some connections are left always.
  Held back for them as the rest is, it came no sooner than they asked: reading 100 listed parts one after
  the other at 50 ms took 0.52 of the first machine's time then, and takes 0.30 now.
* Else nothing is begun while a reader waits for something; what is on its way is held back (`parts/brake`).
* Nothing in the cache makes way for it: room is reserved before (`parts/objects`); without more, it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import trio

from jigdofs.errors import JigdofsError, NoRoom, Stopped, UsageError
from jigdofs.format.part import Part
from jigdofs.parts.cache import Cache
from jigdofs.parts.flights import Flights
from jigdofs.parts.slots import Urgency
from jigdofs.parts.store import PartStore, cache_key

_log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 16
"""After so many the mirrors are gone, or lack this image: asking for 60,000 more parts helps nobody."""


class Wanted(NamedTuple):
    """A part to have, and the image that knows where it is.

    Attributes:
        store: of the image.
        part: the part.
        expected: a reader will come to it soon, as a list says: it does not stand back for other readers.
    """

    store: PartStore
    part: Part
    expected: bool = False


@dataclass(slots=True)
class FillAccount:
    """How far a background fill is; sizes in bytes.

    Attributes:
        parts: wanted, each counted once.
        size: of all of them.
        parts_here: of them in the cache by now.
        bytes_here: the same in bytes.
        parts_failed: that no location gave.
        last_failure: why the last of these could not be had; "" if none failed.
        ended_early: why it ended before all were tried; "" if it did not.
        full: there was no more room.
    """

    parts: int = 0
    size: int = 0
    parts_here: int = 0
    bytes_here: int = 0
    parts_failed: int = 0
    last_failure: str = ""
    ended_early: str = ""
    full: bool = False


class Prefetcher:
    """Fetch parts in the background.

    Attributes:
        running: how far each of those is that are at work.

    Args:
        flights: tell when readers wait.
        cache: where parts are kept; None for nowhere.
        width: how many at a time.
    """

    def __init__(self, flights: Flights, cache: Cache | None, width: int) -> None:
        self._flights = flights
        self._cache = cache
        self.width = width
        self.running: list[FillAccount] = []

    async def fill(self, wanted: Iterable[Wanted], account: FillAccount) -> None:
        """Have these parts in the cache, in this order.

        Raises:
            UsageError: there is no cache.
        """
        if self._cache is None:
            raise UsageError("there is no cache to keep parts in")
        self.running.append(account)
        try:
            await self._fill(self._cache, wanted, account)
        finally:
            self.running.remove(account)

    async def _fill(self, cache: Cache, wanted: Iterable[Wanted], account: FillAccount) -> None:
        left: dict[str, Wanted] = {}
        for one in wanted:
            left.setdefault(cache_key(one.part), one)  # what is wanted twice, as it was wanted first
        account.parts = len(left)
        account.size = sum(one.part.length for one in left.values())
        for key in await trio.to_thread.run_sync(cache.present, left):
            _count(left.pop(key).part, account)
        row = _Row()
        for urgency in (Urgency.EXPECTED, Urgency.BACKGROUND):
            queue = iter([one for one in left.values() if one.expected is (urgency is Urgency.EXPECTED)])
            async with trio.open_nursery() as nursery:
                for _ in range(self.width):
                    nursery.start_soon(self._work, queue, urgency, account, row)

    async def _work(self, queue: Iterator[Wanted], urgency: Urgency, account: FillAccount, row: _Row) -> None:
        while True:
            if urgency is Urgency.BACKGROUND:
                await self._flights.wait_quiet()
            if account.ended_early or self._flights.stopped:
                return
            wanted = next(queue, None)  # only now: a worker that waits keeps no part back
            if wanted is None:
                return
            store, part, _ = wanted
            try:
                await store.obtain(part, urgency)
            except NoRoom as error:
                account.full = True
                account.ended_early = f"{error}; --cache-max-size and --cache-min-free say what it may have"
            except Stopped:
                return
            except JigdofsError as error:
                account.parts_failed += 1
                account.last_failure = str(error)
                row.failures += 1
                _log.info("fetching ahead: %s", error)
                if row.failures >= FAILURES_IN_A_ROW and not account.ended_early:
                    account.ended_early = f"{row.failures} parts in a row cannot be had"
            else:
                row.failures = 0
                _count(part, account)


@dataclass(slots=True)
class _Row:
    """How many parts failed since one was had."""

    failures: int = 0


def _count(part: Part, account: FillAccount) -> None:
    account.parts_here += 1
    account.bytes_here += part.length
