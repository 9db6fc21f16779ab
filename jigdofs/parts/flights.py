"""One flight per key: however many want a file, it is obtained once.

Invariant of this file: a waiter that gives up does not end the flight; flights live in the daemon's
own nursery, so no cancel scope of a reader ever hits a connection being made (httpcore#1093).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import trio

from jigdofs.errors import JigdofsError, Stopped
from jigdofs.parts.open_file import OpenFile
from jigdofs.parts.slots import Ticket, Urgency

_log = logging.getLogger(__name__)

Obtain = Callable[[Ticket], Awaitable[OpenFile]]


class Flight:
    """A file on its way."""

    def __init__(self, urgency: Urgency) -> None:
        self.ticket = Ticket(urgency)
        self._waiters = 0
        self._done = trio.Event()
        self._file: OpenFile | None = None
        self._error: JigdofsError | None = None

    def land(self, file: OpenFile) -> None:
        """Give the file to all who wait, pinned once for each."""
        if self._done.is_set():
            return  # stopped meanwhile
        self._file = file
        for _ in range(self._waiters):
            file.pin()
        self._done.set()

    def fail(self, error: JigdofsError) -> None:
        """Give the error to all who wait."""
        self._error = error
        self._done.set()

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return self._waiters

    async def wait(self) -> OpenFile:
        """Return the file, pinned, or raise what went wrong."""
        self._waiters += 1
        try:
            await self._done.wait()
        except trio.Cancelled:
            if self._file is not None:
                self._file.unpin()
            self._waiters -= 1
            raise
        if self._error is not None:
            raise self._error.with_traceback(None)
        assert self._file is not None
        return self._file


class Flights:
    """All flights of the daemon.

    Args:
        nursery: where they run; it outlives every reader.
        settle_s: how long after the last flight for a reader it is still not quiet: whoever read a part
            most probably reads the next one in a moment.
    """

    def __init__(self, nursery: trio.Nursery, settle_s: float = 0.0) -> None:
        self._nursery = nursery
        self._flights: dict[str, Flight] = {}
        self._urgent = 0  # flights that a reader waits for, or will soon
        self._quiet = trio.lowlevel.ParkingLot()
        self._settle_s = settle_s
        self._quiet_at = -math.inf
        self.stopped = False

    def __len__(self) -> int:
        return len(self._flights)

    def names(self) -> list[str]:
        """Return what is on its way, by the names it was joined by."""
        return list(self._flights)

    @property
    def waiting(self) -> int:
        """How many wait for something that is on its way."""
        return sum(flight.waiting for flight in self._flights.values())

    def stop(self) -> None:
        """Fail everything that is on its way, and all that is asked for later, at once."""
        self.stopped = True
        for flight in self._flights.values():
            flight.fail(Stopped("jigdofs is being stopped"))
        self._quiet.unpark_all()

    def join(self, key: str, urgency: Urgency, obtain: Obtain) -> Flight:
        """Return the flight of a key; start it if there is none, hurry it if it is wanted more now."""
        flight = self._flights.get(key)
        if self.stopped:
            flight = Flight(urgency)
            flight.fail(Stopped("jigdofs is being stopped"))
        elif flight is None:
            flight = self._flights[key] = Flight(urgency)
            self._urgent += urgency.for_a_reader
            self._nursery.start_soon(self._fly, key, flight, obtain)
        else:
            before = flight.ticket.urgency
            flight.ticket.hurry(urgency)
            self._urgent += urgency.for_a_reader and not before.for_a_reader
        return flight

    @property
    def quiet(self) -> bool:
        """Tell whether nothing is on its way that a reader waits for, or will soon."""
        return not self._urgent and trio.current_time() >= self._quiet_at

    async def wait_quiet(self) -> None:
        """Wait until nothing is on its way but what the background wants."""
        while not self.quiet and not self.stopped:
            if self._urgent:
                await self._quiet.park()
            else:
                await trio.sleep_until(self._quiet_at)

    def _ended(self, key: str, flight: Flight) -> None:
        del self._flights[key]
        if flight.ticket.urgency.for_a_reader:
            self._urgent -= 1
            self._quiet_at = trio.current_time() + self._settle_s
            if not self._urgent:
                self._quiet.unpark_all()

    async def _fly(self, key: str, flight: Flight, obtain: Obtain) -> None:
        try:
            file = await obtain(flight.ticket)
        except JigdofsError as error:
            self._ended(key, flight)
            flight.fail(error)
        except Exception as error:  # noqa: BLE001  logged whole; the reader gets an error
            # a bug: the one reader fails, the mount lives on
            _log.exception("internal error while obtaining %s", key)
            self._ended(key, flight)
            flight.fail(JigdofsError(f"internal error while obtaining {key}: {error}"))
        else:
            self._ended(key, flight)
            flight.land(file)
