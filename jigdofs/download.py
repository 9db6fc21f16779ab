"""Download an image: what is on this machine first, then the mirrors, then the check of the whole.

Invariants of this file:
* Work goes on from whatever a run before left; what is in place is not fetched again.
* A part that cannot be had costs the image, not the other parts: all that can be had is in place in the
  end, so that another run fetches the rest alone.
* Every run ends: when no mirror answers any more, the rest is not asked for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from jigdofs.build.account import MIRRORS
from jigdofs.build.blueprint import ImageSum
from jigdofs.build.builder import Builder, Missing
from jigdofs.build.from_cache import fill_from_cache
from jigdofs.build.from_sources import fill_from_sources
from jigdofs.build.place_sink import PlaceSink
from jigdofs.errors import Incomplete, NotThere, PartUnavailable
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.cache import Cache
from jigdofs.parts.locations import Locator
from jigdofs.parts.slots import Ticket, Urgency
from jigdofs.parts.store import PartStore
from jigdofs.sources.sources import Sources

_log = logging.getLogger(__name__)
T = TypeVar("T")

HOPELESS_FAILURES = 16
"""After so many parts in a row that no mirror answered for, the rest is not asked for in this run."""
RESUMED_FROM_BYTES = 1 << 20
"""Parts of this length are looked at whether a run before ours had fetched their beginning."""
_SHOWN_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Supply:
    """Where the parts of one image come from.

    Attributes:
        locator: where each part may be had.
        acquirer: how it is fetched.
        connections: how many parts are fetched at once.
        cache: what is on this machine already, or None.
        sources: local files and old images, scanned; or None.
        store: keeps what is fetched in the cache; None to write straight to the image.
    """

    locator: Locator
    acquirer: Acquirer
    connections: int
    cache: Cache | None = None
    sources: Sources | None = None
    store: PartStore | None = None


class Download:
    """One image being downloaded; to be run within `interruptible`.

    Args:
        builder: of the image.
        supply: where its parts come from.
    """

    def __init__(self, builder: Builder, supply: Supply) -> None:
        self._builder = builder
        self._supply = supply
        self._failed = 0
        self._first_failure = self._last_failure = ""
        self._failures_in_a_row = 0

    async def run(self) -> None:
        """Complete the image and give it its name.

        Raises:
            Incomplete: parts could not be had; what could is kept for the next run.
            WrongImage: the parts are right, the whole is not.
            NoRoom: the disk is full.
            FormatError: the template is damaged.
        """
        missing = await _in_thread(self._builder.missing)
        await _in_thread(self._builder.check_room, [])
        await self._complete(missing)
        wrong = await _in_thread(self._builder.wrong_sums)
        if wrong:
            await self._mend(wrong[0])
        await _in_thread(self._builder.finish)

    async def _mend(self, wrong: ImageSum) -> None:
        """Find what is damaged and have it once more; the check then begins anew."""
        name = self._builder.path
        _log.warning("%s: has not the %s it should have; looking for damage", name, wrong.algorithm)
        missing = await _in_thread(self._builder.unmark_damage)
        _log.warning("%s: parts that are damaged and had once more: %d", name, len(missing))
        await self._complete(missing)

    async def _complete(self, missing: list[Missing]) -> None:
        """Put everything in place, raw data meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_in_thread, self._builder.write_raw)
            for fill in self._local_fills():
                if missing:
                    missing = await _in_thread(fill, missing)
            if missing:
                await _in_thread(self._builder.check_room, missing)
                await self._fetch(missing)
        if self._failed:
            raise self._incomplete(missing)

    def _local_fills(self) -> list[Callable[[list[Missing]], list[Missing]]]:
        fills: list[Callable[[list[Missing]], list[Missing]]] = [self._builder.fill_from_itself]
        if self._supply.sources is not None:
            sources = self._supply.sources
            fills.append(
                lambda missing: fill_from_sources(self._builder, missing, sources, self._supply.locator.names)
            )
        if self._supply.cache is not None:
            cache = self._supply.cache
            fills.append(lambda missing: fill_from_cache(self._builder, missing, cache))
        return fills

    # -- mirrors ---------------------------------------------------------------------------------

    async def _fetch(self, missing: list[Missing]) -> None:
        """Fetch everything, by workers of two kinds.

        Half of them go by image order, so that the check of the whole can follow; half by size, so that
        no large part is left alone at the end, nor holds the check up: without, MD5 of a 570 MB image
        began only after a part of 79 MB, a fifth on the way, was there.
        """
        left = dict.fromkeys(missing)
        by_order, by_size = iter(missing), iter(sorted(missing, key=lambda wanted: -wanted.part.length))

        async def work(order: Iterator[Missing]) -> None:
            for wanted in order:
                if self._failures_in_a_row >= HOPELESS_FAILURES:
                    return
                if wanted in left:
                    del left[wanted]
                    await self._fetch_one(wanted)

        async with trio.open_nursery() as nursery:
            # twice as many as may fetch: while one part is verified and marked, the next comes in
            for _ in range(self._supply.connections):
                nursery.start_soon(work, by_order)
                nursery.start_soon(work, by_size)

    async def _fetch_one(self, wanted: Missing) -> None:
        try:
            if self._supply.store is None:
                await self._fetch_into_place(wanted)
            else:
                await self._fetch_into_cache(wanted, self._supply.store)
        except PartUnavailable as error:
            self._failed += 1
            self._last_failure = str(error)
            self._first_failure = self._first_failure or self._last_failure
            lacking = all(isinstance(attempt, NotThere) for attempt in error.attempts)
            self._failures_in_a_row += not lacking
            if self._failed <= _SHOWN_FAILURES:
                _log.warning("%s", error)
        else:
            self._failures_in_a_row = 0

    async def _fetch_into_place(self, wanted: Missing) -> None:
        sink = PlaceSink(self._builder, wanted)
        locations = self._supply.locator.locations(wanted.part.checksum)
        if wanted.part.length >= RESUMED_FROM_BYTES:
            await _in_thread(sink.resume)
        try:
            await self._supply.acquirer.acquire(wanted.part, locations, sink, Ticket(Urgency.FOREGROUND))
        except PartUnavailable:
            sink.restart()
            raise

    async def _fetch_into_cache(self, wanted: Missing, store: PartStore) -> None:
        file = await store.open(wanted.part)
        try:
            found = await _in_thread(self._builder.place, wanted, file.fd, 0, MIRRORS)
        finally:
            file.unpin()
        if found != wanted.part.checksum:
            raise PartUnavailable(str(wanted.part), ())

    def _incomplete(self, missing: list[Missing]) -> Incomplete:
        left = self._builder.count_lacking(missing)
        reason = self._first_failure
        if self._failures_in_a_row >= HOPELESS_FAILURES:
            reason = (
                f"after {self._failed} failures the rest was not asked for; the last: {self._last_failure}"
            )
        return Incomplete(
            f"{self._builder.path}: {left} of {len(missing)} parts that had to be fetched are missing"
            f" ({reason}); {self._builder.unfinished.path} keeps the others: run the same command again"
            " later, or name another --mirror or --scan",
            left,
        )


@asynccontextmanager
async def interruptible(builder: Builder) -> AsyncIterator[None]:
    """Stop the builder when the block is cancelled, so that its threads, which are waited for, end."""
    finished = False

    async def stop_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if not finished:
                builder.stop()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_when_cancelled)
        yield
        finished = True
        nursery.cancel_scope.cancel()


async def _in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Run blocking work of the builder, which ends soon after `Builder.stop`."""
    return await trio.to_thread.run_sync(functools.partial(work, *arguments))
