"""Hold background transfers back: for a bandwidth limit, and while a reader waits for something else.

Invariants of this file:
* Only what nobody waits for is held back, and it is let go at once when somebody does. What a list expects
  is held back for the limit alone.
* A transfer is never stopped dead: servers drop connections that take nothing for a minute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from jigdofs.parts.slots import Ticket, Urgency

PAUSE_S = 10.0
"""How long a piece is held back for readers at most. A piece is what one read of a connection brings, 512 KiB
or less: so a transfer makes some way, which keeps its connection alive, but takes little of a slow line."""
BURST_S = 0.25
"""How much may come at once after a silence, in seconds of the limit."""


class Traffic(Protocol):
    """All that is on its way."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is that a reader waits for."""

    async def wait_quiet(self) -> None:
        """Wait until that is so."""


class Brake:
    """The limits of all background transfers of the daemon together.

    Args:
        traffic: tells when readers wait.
        clock: seconds, such as `trio.current_time`.
        bytes_per_s: the bandwidth limit; None for none.
    """

    def __init__(self, traffic: Traffic, clock: Callable[[], float], bytes_per_s: int | None) -> None:
        self._traffic = traffic
        self._clock = clock
        self._bytes_per_s = bytes_per_s
        self._changed = trio.Event()  # the limit did
        self._taken = 0.0  # bytes that came, and those that did not come in a silence
        self._allowed_then = 0.0  # bytes that might have come by then
        self._then = clock()

    @property
    def bytes_per_s(self) -> int | None:
        """The bandwidth limit; a new one holds at once, for what is held back already, too."""
        return self._bytes_per_s

    @bytes_per_s.setter
    def bytes_per_s(self, limit: int | None) -> None:
        self._allowed_then, self._then = self._allowed(), self._clock()
        self._bytes_per_s = limit
        self._changed.set()
        self._changed = trio.Event()

    def _allowed(self) -> float:
        """Return how many bytes might have come by now."""
        if self._bytes_per_s is None:
            return self._taken
        return self._allowed_then + (self._clock() - self._then) * self._bytes_per_s

    async def __call__(self, ticket: Ticket, count: int) -> None:
        """Note bytes that came, and hold their transfer back as long as it must be."""
        if _is_for_a_reader(ticket):
            return
        if ticket.urgency >= Urgency.BACKGROUND and not self._traffic.quiet:
            with trio.move_on_after(PAUSE_S):
                await _first_of(self._traffic.wait_quiet, ticket.wait_hurried)
            if _is_for_a_reader(ticket):
                return
        burst = BURST_S * (self._bytes_per_s or 0)
        self._taken = max(self._taken, self._allowed() - burst) + count
        mine = self._taken
        while not _is_for_a_reader(ticket) and self._bytes_per_s is not None:
            too_many = mine - self._allowed()
            if too_many < 1:
                break
            with trio.move_on_after(too_many / self._bytes_per_s):
                await _first_of(ticket.wait_hurried, self._changed.wait)


def _is_for_a_reader(ticket: Ticket) -> bool:
    """Tell whether somebody who reads wants it; that may change with every wait."""
    return ticket.urgency.for_a_reader


async def _first_of(*waits: Callable[[], Awaitable[None]]) -> None:
    """Wait until one of them ends."""
    async with trio.open_nursery() as nursery:

        async def end_with(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(end_with, wait)
