"""How fast a count grows now."""

from __future__ import annotations

from collections import deque

_WINDOW_S = 5.0
_TICK_S = 1.0


class Rate:
    """How fast a count grows now: over the last few seconds, to a second; costs nothing while nothing comes.

    Args:
        window_s: over which it is taken.
    """

    __slots__ = ("_before", "_window_s", "next_tick")

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        self._before: deque[tuple[float, int]] = deque(maxlen=int(window_s / _TICK_S) + 2)
        self._window_s = window_s
        self.next_tick = 0.0

    def tick(self, now: float, count: int) -> None:
        """Note how much there was before something came; called when `now` has reached `next_tick`."""
        self._before.append((now, count))
        self.next_tick = now + _TICK_S

    def per_s(self, now: float, count: int) -> float:
        """Return how much came a second."""
        since = now - self._window_s
        earlier = next((before for time, before in self._before if time >= since), count)
        return (count - earlier) / self._window_s
