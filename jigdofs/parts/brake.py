"""Hold background transfers back: for a bandwidth limit, and while a reader waits for something else.

Invariants of this file:
* Only what nobody waits for is held back, and it is let go at once when somebody does.
* A transfer is never stopped dead: servers drop connections that take nothing for a minute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from jigdofs.parts.slots import Ticket, Urgency

PAUSE_S = 1.0
"""How long a piece is held back for readers at most. A piece is what one read of a connection brings, 512 KiB
or less: so a transfer still makes some way, which keeps its connection alive."""
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
        self.bytes_per_s = bytes_per_s
        self._traffic = traffic
        self._clock = clock
        self._free_at = clock()  # when the bytes so far will have had the time that they may take

    async def __call__(self, ticket: Ticket, count: int) -> None:
        """Note bytes that came, and hold their transfer back as long as it must be."""
        if ticket.urgency < Urgency.BACKGROUND:
            return
        if not self._traffic.quiet:
            with trio.move_on_after(PAUSE_S):
                await _first_of(self._traffic.wait_quiet, ticket.wait_hurried)
        if self.bytes_per_s is not None:
            now = self._clock()
            self._free_at = max(self._free_at, now - BURST_S) + count / self.bytes_per_s
            with trio.move_on_after(max(0.0, self._free_at - now)):
                await ticket.wait_hurried()


async def _first_of(*waits: Callable[[], Awaitable[None]]) -> None:
    """Wait until one of them ends."""
    async with trio.open_nursery() as nursery:

        async def end_with(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(end_with, wait)
