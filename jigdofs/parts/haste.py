"""How long one location of a part may take while others are left to be asked. Pure.

A reader waits two minutes at most, and any number of locations may hang before the one that works. So
* who sends nothing for some seconds is passed over, and asked again in a later round, with more time;
* in the first round all locations that are slow have one minute together, shared out among those left;
* whoever is asked when no other is left, or at last, has all the time that the options give.
"""

from __future__ import annotations

from dataclasses import dataclass

from jigdofs.config import FetchOptions

HESITATE_S = 4.0
"""Silence after which the next location is asked: 8 that hang cost 32 s. It doubles with each round; caching
proxies that must ask elsewhere first, and lost packets, rarely take as long."""
_DECENT_BYTES_PER_S = 1 << 20
"""Nobody who sends as fast is passed over for being slow within that minute: the next one may be slower."""
_LEAST_S = 1.0


@dataclass(frozen=True, slots=True)
class Haste:
    """The limits of one transfer; None for what is usual, as in `Request`."""

    silence_s: float | None = None
    patience_s: float | None = None


def haste(
    options: FetchOptions, length: int, spent_s: float, *, number: int, others: int, left: int
) -> Haste:
    """Return the limits for the next location.

    Args:
        options: how transfers behave.
        length: of the part, in bytes.
        spent_s: how long the locations took that failed already.
        number: of the round, from 0.
        others: how many are to be asked after this one in this round.
        left: how many are to be asked in the next round if this one fails.
    """
    if number + 1 >= options.rounds or left < 2:
        return Haste()
    patience_s = None
    if number == 0:
        rest_s = max(options.patience_s - spent_s, 0.0)
        share_s = rest_s / (others + 1) + length / _DECENT_BYTES_PER_S
        patience_s = max(min(rest_s, share_s), min(_LEAST_S, options.patience_s / 8))
    if not others:
        return Haste(None, patience_s)
    silence_s = min(HESITATE_S * 2**number, options.stall_timeout_s)
    return Haste(silence_s if patience_s is None else min(silence_s, patience_s), patience_s)
