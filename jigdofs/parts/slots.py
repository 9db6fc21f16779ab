"""Who may fetch next: a fixed number of slots, given to the most urgent first.

Less urgent work leaves some slots free, so that a reader who waits never finds all of them taken
by large transfers that nobody waits for; and the background leaves some more to what is read ahead of
readers, or its transfers, slowed down for them, would keep them waiting.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import AsyncIterator

import trio


class Urgency(enum.IntEnum):
    """How badly something is wanted; smaller goes first."""

    FOREGROUND = 0
    READAHEAD = 1
    EXPECTED = 2
    BACKGROUND = 3

    @property
    def for_a_reader(self) -> bool:
        """Whether somebody who reads waits for it, or will soon; `EXPECTED` is what a list says only."""
        return self < Urgency.EXPECTED


class Ticket:
    """One piece of work and its urgency, which may rise while it waits."""

    __slots__ = ("_event", "_hurried", "_slots", "urgency")

    def __init__(self, urgency: Urgency) -> None:
        self.urgency = urgency
        self._hurried = trio.Event()
        self._slots: Slots | None = None
        self._event: trio.Event | None = None

    def hurry(self, urgency: Urgency) -> None:
        """Raise the urgency; never lowers it."""
        if urgency >= self.urgency:
            return
        slots = self._slots
        if slots is not None:
            slots.requeue(self, urgency)
        self.urgency = urgency
        self._hurried.set()
        if slots is not None:
            slots.wake()

    async def wait_hurried(self) -> None:
        """Wait until somebody wants this more urgently than it was wanted at first."""
        await self._hurried.wait()

    async def wait_in(self, slots: Slots) -> None:
        """Wait until `slots` grants one; called by `Slots` alone."""
        self._slots, self._event = slots, trio.Event()
        try:
            await self._event.wait()
        finally:
            self._slots = None

    def grant(self) -> None:
        """End the wait; called by `Slots` alone."""
        assert self._event is not None
        self._event.set()

    @property
    def granted(self) -> bool:
        """Tell whether the wait was ended by a grant."""
        return self._event is not None and self._event.is_set()


def _needed(total: int, spare: int) -> list[int]:
    """Return how many slots must be free for each urgency to get one."""
    left_free = (0, (spare + 1) // 2, max(1, spare), max(1, 2 * spare))
    return [1 + min(left_free[urgency], total - 1) for urgency in Urgency]


class Slots:
    """Slots of one host.

    Args:
        total: how many transfers at once.
        spare: how many of them what is expected may not take; half of them is for foreground work only, and
            as many again for nothing in the background.
    """

    def __init__(self, total: int, spare: int) -> None:
        self._free = total
        self._total = total
        self._behind = 0  # held by what no reader waits for
        self._needed = _needed(total, spare)
        self._waiting: tuple[dict[Ticket, None], ...] = tuple({} for _ in Urgency)

    @property
    def idle(self) -> bool:
        """Tell whether nobody holds a slot or waits for one."""
        return self._free == self._total and not any(self._waiting)

    def resize(self, total: int, spare: int) -> None:
        """Have so many from now on; those held beyond are not taken back."""
        self._free += total - self._total
        self._total = total
        self._needed = _needed(total, spare)
        self.wake()

    @contextlib.asynccontextmanager
    async def hold(self, ticket: Ticket) -> AsyncIterator[None]:
        """Hold one slot, waiting for it by urgency, then by age."""
        await self._acquire(ticket)
        try:
            behind = not ticket.urgency.for_a_reader
            self._behind += behind
            yield
        finally:
            self._behind -= behind
            self._free += 1
            self.wake()

    async def _acquire(self, ticket: Ticket) -> None:
        self._waiting[ticket.urgency][ticket] = None
        if not self._grant_to(ticket):
            try:
                await ticket.wait_in(self)
            except trio.Cancelled:
                if ticket.granted:
                    self._free += 1
                    self.wake()
                self._waiting[ticket.urgency].pop(ticket, None)
                raise

    def _grant_to(self, ticket: Ticket) -> bool:
        """Give a slot at once if nobody more urgent or older waits and the rules allow."""
        first = self._next()
        if first is not ticket:
            return False
        del self._waiting[ticket.urgency][ticket]
        self._free -= 1
        return True

    def _next(self) -> Ticket | None:
        for urgency, queue in zip(Urgency, self._waiting, strict=True):
            # where all of them are held by what is held back for readers, a reader gets one more
            extra = urgency is Urgency.FOREGROUND and self._behind == self._total and self._free == 0
            if queue and (self._free >= self._needed[urgency] or extra):
                return next(iter(queue))
            if queue:
                return None
        return None

    def requeue(self, ticket: Ticket, urgency: Urgency) -> None:
        """Move a waiting ticket to a more urgent queue."""
        if ticket in self._waiting[ticket.urgency]:
            del self._waiting[ticket.urgency][ticket]
            self._waiting[urgency][ticket] = None

    def wake(self) -> None:
        """Hand free slots out."""
        while (ticket := self._next()) is not None:
            del self._waiting[ticket.urgency][ticket]
            self._free -= 1
            ticket.grant()
