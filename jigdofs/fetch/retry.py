"""Try a whole file again after trouble that may pass; parts have their own loop over locations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from jigdofs.config import FetchOptions
from jigdofs.errors import MirrorTrouble

_MAX_PAUSE_S = 10.0


async def retrying(attempt: Callable[[], Awaitable[None]], options: FetchOptions) -> None:
    """Call `attempt` until it raises no `MirrorTrouble`, at most `rounds` times, with growing pauses."""
    for number in range(options.rounds):
        try:
            await attempt()
        except MirrorTrouble as error:
            if number == options.rounds - 1:
                raise
            pause = max(options.backoff_s * 2**number, error.retry_after_s or 0.0)
            await trio.sleep(min(pause, _MAX_PAUSE_S))
        else:
            return
