"""Hold background transfers back: for a bandwidth limit, and while a reader waits for something else.

Invariants of this file:
* Only what nobody waits for is held back, and it is let go at once when somebody does.
* A transfer is never stopped dead: servers drop connections that take nothing for a minute.
"""

from __future__ import annotations

from collections.abc import Callable

from jigdofs.parts.slots import Ticket, Urgency

PAUSE_S = 1.0
"""How long a piece is held back for readers. A piece is what one read of a connection brings, 512 KiB at
most: so a transfer that makes way still brings some bytes a second, which keeps its connection alive."""
BURST_S = 0.25
"""How much may come at once after a silence, in seconds of the limit."""


class Brake:
    """The limits of all background transfers of the daemon together.

    Args:
        quiet: tells whether no reader waits for anything.
        clock: seconds, such as `trio.current_time`.
        bytes_per_s: the bandwidth limit; None for none.
    """

    def __init__(
        self, quiet: Callable[[], bool], clock: Callable[[], float], bytes_per_s: int | None
    ) -> None:
        self.bytes_per_s = bytes_per_s
        self._quiet = quiet
        self._clock = clock
        self._free_at = clock()  # when the bytes so far will have had the time that they may take

    async def __call__(self, ticket: Ticket, count: int) -> None:
        """Note bytes that came, and hold their transfer back as long as it must be."""
        if ticket.urgency < Urgency.BACKGROUND:
            return
        if not self._quiet():
            await ticket.dawdle(PAUSE_S)
        if self.bytes_per_s is not None:
            now = self._clock()
            self._free_at = max(self._free_at, now - BURST_S) + count / self.bytes_per_s
            if self._free_at > now and ticket.urgency is Urgency.BACKGROUND:
                await ticket.dawdle(self._free_at - now)
