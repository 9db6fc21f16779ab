"""The object store: verified files by key, open already, in the cache, or made now."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from jigdofs.errors import CacheError, JigdofsError, NoRoom
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.in_thread import GIVE_UP
from jigdofs.parts.cache import Cache
from jigdofs.parts.flights import Flight, Flights
from jigdofs.parts.open_file import OpenFile, OpenFiles
from jigdofs.parts.slots import Ticket, Urgency
from jigdofs.parts.spool import Place, Spoilt, Spool

_log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.02
_BACKGROUND_PATIENCE_S = 60.0
_DISTRUST_S = (
    30.0  # so long nobody is waited for after somebody was in vain: a stopped process keeps its turns
)

Fill = Callable[[Spool, Ticket], Awaitable[OpenFile]]
"""Fill a spool, verify it and finish it."""
Write = Callable[[bytes], None]


class _ForReaders:
    """A place for what somebody reads: elsewhere than in the cache, nothing is kept for nobody.

    Args:
        place: the place.
        ticket: tells whether somebody wants to read.
    """

    def __init__(self, place: Place, ticket: Ticket) -> None:
        self._place = place
        self._ticket = ticket
        self.keep = place.keep
        self.abandon = place.abandon

    def create(self, length: int) -> int:
        """Make a file there if somebody wants to read it."""
        if not self._ticket.urgency.for_a_reader:
            raise CacheError("the cache takes no more, and nobody waits")
        return self._place.create(length)


class ObjectStore:
    """Open files by key, each obtained once however many ask.

    Args:
        cache: where files are kept, or None to keep nothing.
        flights: what is on its way.
        open_files: what is open.
        fallbacks: where files are written that the cache does not take.
        others_s: how long a reader waits for another process that fetches what he wants; it may be stopped.
    """

    def __init__(
        self,
        cache: Cache | None,
        flights: Flights,
        open_files: OpenFiles,
        fallbacks: tuple[Place, ...],
        others_s: float = 5.0,
    ) -> None:
        self._cache = cache
        self._flights = flights
        self._open_files = open_files
        self._fallbacks = fallbacks
        self._others_s = others_s
        self._waited_in_vain_at = -math.inf
        self._disk = trio.CapacityLimiter(16)

    @property
    def kept(self) -> Cache | OpenFiles:
        """Tells which files are here: the cache, or without one those that are open."""
        return self._open_files if self._cache is None else self._cache

    def peek(self, key: str, length: int) -> OpenFile | None:
        """Return the file if it is open, or can be opened without waiting; usable until the next await."""
        file = self._open_files.get(key)
        if file is None and self._cache is not None:
            file = self._cache.open_at_once(key, length)
            if file is not None:
                self._open_files.add(key, file)
        return file

    async def open(self, key: str, length: int, checksum: Checksum | None, fill: Fill) -> OpenFile:
        """Return the file, pinned; `fill` is called if the cache has none."""
        file = self.peek(key, length)
        if file is not None:
            file.pin()
            return file
        return await self._flight(key, length, checksum, fill, Urgency.FOREGROUND).wait()

    def hint(self, key: str, length: int, checksum: Checksum | None, fill: Fill, urgency: Urgency) -> None:
        """Begin to obtain a file that nobody waits for yet."""
        if self.peek(key, length) is None:
            self._flight(key, length, checksum, fill, urgency)

    async def obtain(
        self, key: str, length: int, checksum: Checksum | None, fill: Fill, urgency: Urgency
    ) -> None:
        """Have a file in the cache, below everything that readers want.

        Raises:
            NoRoom: something in the cache would have to make way for it.
            JigdofsError: it cannot be had.
        """
        file = await self._flight(key, length, checksum, fill, urgency).wait()
        file.unpin()

    async def open_made(self, key: str, length: int, make: Callable[[Write], None]) -> OpenFile:
        """Return a file that we make ourselves, pinned; `make` runs in a worker thread."""
        return await self.open(key, length, None, partial(self._make, make))

    def hint_made(self, key: str, length: int, make: Callable[[Write], None]) -> None:
        """Begin to make a file that nobody waits for yet."""
        self.hint(key, length, None, partial(self._make, make), Urgency.READAHEAD)

    async def _make(self, make: Callable[[Write], None], spool: Spool, _ticket: Ticket) -> OpenFile:
        def write(data: bytes) -> None:
            if self._flights.stopped:  # a chunk may inflate for minutes
                raise JigdofsError("jigdofs is being stopped")
            spool.write(data)

        def work() -> OpenFile:
            make(write)
            return spool.finish()

        return await trio.to_thread.run_sync(work, limiter=self._disk)

    def _flight(
        self, key: str, length: int, checksum: Checksum | None, fill: Fill, urgency: Urgency
    ) -> Flight:
        # with its length: who wants a file that cannot be, under a checksum that exists, is alone with it
        flight = f"{key} {length}"
        return self._flights.join(flight, urgency, partial(self._obtain, key, length, checksum, fill))

    async def _obtain(
        self, key: str, length: int, checksum: Checksum | None, fill: Fill, ticket: Ticket
    ) -> OpenFile:
        file, ours = await self._cached(key, length, checksum, ticket)
        try:
            if file is None and not ours:
                file = await self._by_others(key, length, checksum, ticket)
            if file is None and not ticket.urgency.for_a_reader:
                try:
                    file = await self._filled_ahead(key, length, checksum, fill, ticket)
                except NoRoom:
                    if not ticket.urgency.for_a_reader:
                        raise  # else a reader came meanwhile, and room is made for him
            if file is None:
                file = await self._filled(length, self._places(key, checksum), checksum, fill, ticket)
        finally:
            if self._cache is not None and checksum is not None:
                self._cache.turns.leave(key)
        self._open_files.add(key, file)
        return file

    async def _by_others(
        self, key: str, length: int, checksum: Checksum | None, ticket: Ticket
    ) -> OpenFile | None:
        """Wait until another process has fetched a file, or does not any more; None if we are to fetch it."""
        begin = trio.current_time()
        while True:
            patience = self._others_s if ticket.urgency.for_a_reader else _BACKGROUND_PATIENCE_S
            now = trio.current_time()
            if now - begin >= patience:
                self._waited_in_vain_at = now
                _log.debug("%s: not waiting any longer for the process that fetches it", key)
                return None
            if now - self._waited_in_vain_at < _DISTRUST_S:
                return None
            await trio.sleep(_LOOK_AGAIN_S)
            file, ours = await self._cached(key, length, checksum, ticket)
            if file is not None or ours:
                return file

    async def _filled_ahead(
        self, key: str, length: int, checksum: Checksum | None, fill: Fill, ticket: Ticket
    ) -> OpenFile:
        """Have a file that nobody reads yet, where nothing must make way for it; raise `NoRoom`."""
        if self._cache is None:
            raise NoRoom("there is no cache to keep it in")
        place = self._cache.place(key, checksum)
        try:
            await trio.to_thread.run_sync(place.reserve, length, limiter=self._disk)
        except CacheError as error:
            raise NoRoom(str(error)) from error
        try:
            others = (_ForReaders(fallback, ticket) for fallback in self._fallbacks)
            return await self._filled(length, (place, *others), checksum, fill, ticket)
        finally:
            place.give_back()

    @staticmethod
    async def _filled(
        length: int, places: tuple[Place, ...], checksum: Checksum | None, fill: Fill, ticket: Ticket
    ) -> OpenFile:
        algorithm = checksum.algorithm if checksum is not None else Algorithm.SHA256
        for again in (False, True):
            # the second time elsewhere: some filesystems tell late when a file was written to
            spool = Spool(length, (places[1:] or places) if again else places, algorithm.hasher)
            try:
                return await fill(spool, ticket)
            except Spoilt as error:
                if again:
                    raise
                _log.warning("%s; it is had once more", error)
            finally:
                spool.abandon()
        raise AssertionError("the second time returns or raises")

    async def _cached(
        self, key: str, length: int, checksum: Checksum | None, ticket: Ticket
    ) -> tuple[OpenFile | None, bool]:
        """Return the file if the cache has it, else whether it is our turn to fetch it."""
        cache = self._cache
        if cache is None:
            return None, True

        def look() -> tuple[OpenFile | None, bool]:
            if checksum is None:
                return cache.open(key, length), True
            # first the turn: who has it has looked after everybody else was done
            ours = cache.turns.take(key, for_a_reader=ticket.urgency.for_a_reader)
            return cache.open(key, length, checksum), ours

        # left behind at the end of the daemon: verifying a large file may take long
        return await trio.to_thread.run_sync(look, limiter=self._disk, **GIVE_UP)

    def _places(self, key: str, checksum: Checksum | None) -> tuple[Place, ...]:
        if self._cache is None:
            return self._fallbacks
        try:
            return (self._cache.place(key, checksum), *self._fallbacks)
        except CacheError as error:
            _log.debug("%s", error)
            return self._fallbacks
