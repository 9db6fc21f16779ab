"""Obtain one part: ask its locations in turn until the checksum is right. The verdict falls here.

Invariants of this file:
* A sink is finished only after length and checksum matched.
* Every transfer ends (the fetcher sees to it) and their number is bounded; while others are left, none takes
  more than its share of the time that a reader waits.
* Bytes of a broken transfer are used again, by whatever mirror comes next; when the sum is then
  wrong nobody can be blamed, and the part is fetched anew from one mirror at a time.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

import trio

from jigdofs.config import FetchOptions
from jigdofs.errors import (
    FetchError,
    MirrorTrouble,
    NotThere,
    PartUnavailable,
    WrongContent,
)
from jigdofs.fetch.fetcher import Answer, Fetcher, Request
from jigdofs.fetch.url import without_credentials
from jigdofs.format.checksum import Checksum
from jigdofs.format.part import Part
from jigdofs.parts.haste import Haste, haste
from jigdofs.parts.locations import Location
from jigdofs.parts.mirrors import Health, Mirrors
from jigdofs.parts.slots import Ticket

_log = logging.getLogger(__name__)

BATCH_BYTES = 1 << 20
"""Bytes gathered before a thread hashes and writes them: a hop costs 64 us, MD5 of this 1500 us."""
_SMALL_BYTES = 256
_MAX_PAUSE_S = 10.0
_WRONG_WARNINGS = 3  # of one mirror; then it is known
_WRONG_TRIES = 2  # wrong content may be a proxy's bad moment; twice it is the mirror's


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Sink(Protocol[T_co]):
    """Where a part is written: a `Spool`, or its place in an image. All methods block."""

    @property
    def received(self) -> int:
        """Bytes written so far."""

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes."""

    def restart(self) -> None:
        """Forget what was written."""

    def checksum(self) -> Checksum:
        """Return the checksum of what was written so far."""

    def finish(self) -> T_co:
        """Keep what was written: it is complete and right."""


Brake = Callable[[Ticket, int], Awaitable[None]]
"""Hold a transfer back that brought so many bytes, if its ticket bears it."""


async def no_brake(_ticket: Ticket, _count: int) -> None:
    """Let every transfer run."""


class _Avoided(Exception):
    """Say that a mirror failed for others while a part waited for its turn there."""


class Acquirer:
    """Fetch parts, trying their locations by preference and health.

    Args:
        fetcher: gets bytes.
        mirrors: what is known of each.
        options: how transfers behave.
        brake: called with all that comes in.
    """

    def __init__(
        self, fetcher: Fetcher, mirrors: Mirrors, options: FetchOptions, brake: Brake = no_brake
    ) -> None:
        self._fetcher = fetcher
        self._mirrors = mirrors
        self._options = options
        self._brake = brake

    def use(self, options: FetchOptions) -> None:
        """Follow other options from the next location on."""
        self._options = options

    async def acquire(self, part: Part, locations: Sequence[Location], sink: Sink[T], ticket: Ticket) -> T:
        """Fill the sink with the part and finish it; raise `PartUnavailable`."""
        attempts: list[FetchError] = []
        left = dict.fromkeys(locations)
        wrong: Counter[Location] = Counter()
        receiver = _PartReceiver(part, sink, partial(self._brake, ticket), self._mirrors)
        for number in range(self._options.rounds):
            if number and left:
                await trio.sleep(self._pause_s(number, list(left)))
            order = deque(self._mirrors.order(left))
            passed: set[Location] = set()
            while order:
                location = order.popleft()
                receiver.haste = haste(
                    self._options,
                    part.length,
                    receiver.spent_s,
                    number=number,
                    others=len(order),
                    left=len(left),
                )
                receiver.fresh = wrong[location] > 0
                try:
                    other = number == 0 and len(left) > 1 and location not in passed
                    return await self._attempt(part, location, receiver, ticket, alternatives=other)
                except _Avoided:  # that was no try: it has its turn after the others
                    passed.add(location)
                    order.append(location)
                except NotThere as error:
                    attempts.append(error)
                    del left[location]
                except WrongContent as error:
                    attempts.append(error)
                    self._blame(part, location, error)
                    receiver.restart()
                    wrong[location] += 1
                    if wrong[location] >= _WRONG_TRIES:
                        del left[location]
                except MirrorTrouble as error:
                    attempts.append(error)
                    took_s = receiver.took_s
                    self._mirrors.failed(location.mirror, error, took_s=took_s, by_user=location.by_user)
            if not left:
                break
        raise PartUnavailable(str(part), tuple(attempts))

    def _pause_s(self, number: int, left: list[Location]) -> float:
        """Return how long to wait before another round: longer each time, as long as servers ask."""
        backoff: float = self._options.backoff_s * 2 ** (number - 1)
        return min(max(backoff, self._mirrors.asked_to_wait_s(left)), _MAX_PAUSE_S)

    def _blame(self, part: Part, location: Location, error: WrongContent) -> None:
        mirror = without_credentials(location.mirror)
        times = self._mirrors.blame(location.mirror)
        level = logging.WARNING if times <= _WRONG_WARNINGS else logging.INFO
        _log.log(level, "wrong content from mirror %s for part %s: %s", mirror, part, error)

    async def _attempt(
        self,
        part: Part,
        location: Location,
        receiver: _PartReceiver[T],
        ticket: Ticket,
        *,
        alternatives: bool,
    ) -> T:
        """Have one location complete the part; anew by itself if it does not fit to what was there."""
        receiver.location = location
        receiver.health = self._mirrors.health(location.mirror)
        receiver.from_here = 0
        again = self._options.rounds > 1  # what is passed over now is asked in the next round
        receiver.may_pass = alternatives and again and not self._mirrors.avoided(location.mirror)
        try:
            kept = await self._complete(part, location, receiver, ticket)
        except WrongContent:
            if not receiver.mixed:
                raise
            _log.info("part %s: pieces of several mirrors do not fit together; fetching it anew", part)
            receiver.restart()
            kept = await self._complete(part, location, receiver, ticket)
        self._mirrors.succeeded(location.mirror, receiver.from_here)
        return kept

    async def _complete(
        self, part: Part, location: Location, receiver: _PartReceiver[T], ticket: Ticket
    ) -> T:
        if not location.host:
            await self._fetch(part, location, receiver)
        else:
            async with self._mirrors.slots(location.host).hold(ticket):
                if receiver.may_pass and self._mirrors.avoided(location.mirror):
                    raise _Avoided
                await self._brake(ticket, 0)  # it may have waited for the slot until a reader came
                await self._fetch(part, location, receiver)
        return await receiver.finish()

    async def _fetch(self, part: Part, location: Location, receiver: _PartReceiver[T]) -> None:
        if part.length and receiver.received == part.length:
            receiver.restart()
        request = Request(
            location.url,
            offset=receiver.received,
            length=part.length,
            silence_s=receiver.haste.silence_s,
            patience_s=receiver.haste.patience_s,
            fresh=receiver.fresh,
        )
        with receiver.timed():
            await self._fetcher.fetch(request, receiver)


class _PartReceiver(Generic[T]):
    """Gather a part's bytes and have them hashed and written in batches by a worker thread."""

    def __init__(
        self, part: Part, sink: Sink[T], brake: Callable[[int], Awaitable[None]], mirrors: Mirrors
    ) -> None:
        self._part = part
        self._sink = sink
        self._brake = brake
        self._mirrors = mirrors
        self._batch: list[bytes | bytearray] = []
        self._batched = 0
        # what the sink holds already may be anybody's, and wrong
        self._contributors: set[str] = {""} if sink.received else set()
        self.location: Location | None = None
        self.health = Health()  # of its mirror
        self.from_here = 0  # bytes that came from it
        self.haste = Haste()
        self.fresh = False  # its mirror's answer was wrong before
        self.took_s = 0.0  # the last transfer, without what we held it up
        self.spent_s = 0.0  # all of them
        self._since = 0.0
        self.may_pass = False  # over a location whose mirror fails while we wait for a slot

    @property
    def received(self) -> int:
        """Bytes taken in so far, batched ones included."""
        return self._sink.received + self._batched

    @property
    def mixed(self) -> bool:
        """Tell whether more than one location sent what we have."""
        return len(self._contributors) > 1

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Measure a transfer."""
        self._since = trio.current_time()
        try:
            yield
        finally:
            self.took_s = trio.current_time() - self._since
            self.spent_s += self.took_s

    async def begin(self, answer: Answer) -> None:
        """Go on where we were, or begin anew if the server sends everything."""
        if answer.offset != self.received:
            self.restart()
        assert self.location is not None
        self._contributors.add(self.location.url)

    async def receive(self, data: bytes) -> None:
        """Take bytes in."""
        if self._batch and len(data) < _SMALL_BYTES and len(self._batch[-1]) < BATCH_BYTES:
            if not isinstance(self._batch[-1], bytearray):
                self._batch.append(bytearray())
            self._batch[-1] += data  # an object for each byte would take 56 MB
        else:
            self._batch.append(data)
        self.from_here += len(data)
        self._batched += len(data)
        began = trio.current_time()
        self._mirrors.came(self.health, len(data), began)
        if self._batched >= BATCH_BYTES:
            await trio.to_thread.run_sync(self._write)
        await self._brake(len(data))
        self._since += trio.current_time() - began

    async def finish(self) -> T:
        """Check the whole and keep it; raise `WrongContent`."""
        return await trio.to_thread.run_sync(self._finish)

    def restart(self) -> None:
        """Forget everything received."""
        self._batch.clear()
        self._batched = 0
        self._contributors.clear()
        self._sink.restart()

    def _write(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        for data in batch:
            self._sink.write(data)

    def _finish(self) -> T:
        self._write()
        checksum = self._sink.checksum()
        if checksum != self._part.checksum:
            assert self.location is not None
            raise WrongContent(without_credentials(self.location.url), f"has the wrong checksum {checksum}")
        return self._sink.finish()
