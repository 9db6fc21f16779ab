"""When to leave a host alone for a while, and when to give it up, while it is asked for many files.

Rules of this file:
* Trouble is no answer, or one that says nothing of the file (429, 5xx). After it the host rests, as long as
  it asks for, at most 10 s; questions that were under way together are one wave, and count once.
* A host is given up after `rounds` waves of trouble in a row with several files, and after trouble that took
  5 minutes in all; so what it costs is bounded, however many files it should have.
* A file that had nothing but trouble is a suspect until the host answers for another one: then it is the
  file's own fault. If the host is given up, its suspects are lost with it.

`mirrors` remembers how a mirror did in order to ask others first; here there are no others to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from jigdofs.config import FetchOptions
from jigdofs.errors import MirrorTrouble

_MAX_PAUSE_S = 10.0
_MAX_TROUBLE_S = 300.0
_FEW = 4  # files in trouble, of a host that has answered nothing yet: it is the host, not they
_MANY = 16  # the same, of a host that did answer

T = TypeVar("T")


class AskedHost(Generic[T]):
    """How one host does that is asked for many files.

    Args:
        options: of the check.
        clear: told of every suspect whose host proves to work, so that the file alone is to blame.
    """

    def __init__(self, options: FetchOptions, clear: Callable[[T], None]) -> None:
        self.slots = trio.CapacityLimiter(options.connections)
        self.gone: MirrorTrouble | None = None
        """Why it was given up, if it was."""
        self.lost = 0
        """Locations that are lost with it."""
        self._options = options
        self._clear = clear
        self._suspects: list[T] = []  # locations given up for trouble since the last answer
        self._troubled = 0  # these, and those being asked that are in trouble
        self._works = False
        self._waves = 0
        self._last_wave = self._quiet_until = -float("inf")
        self._trouble_s = 0.0
        self._last_trouble: MirrorTrouble | None = None

    async def rest(self) -> None:
        """Leave the host alone as long as it needs."""
        await trio.sleep_until(self._quiet_until)

    def answered(self) -> None:
        """Note an answer, whatever it says of the file."""
        self._works = True
        self._waves = self._troubled = 0
        self._clear_suspects()

    def failed(self, began: float, trouble: MirrorTrouble, *, again: bool) -> None:
        """Note trouble of a question; those that were under way together are one wave.

        Args:
            began: when it was asked.
            trouble: what came of it.
            again: this location was in trouble before.
        """
        now = trio.current_time()
        self._troubled += not again
        if self.gone is not None or began <= self._last_wave:
            return
        self._waves += 1
        self._last_trouble = trouble
        exponent = min(self._waves, self._options.rounds) - 1
        pause_s = min(max(self._options.backoff_s * 2**exponent, trouble.retry_after_s or 0.0), _MAX_PAUSE_S)
        self._trouble_s += now - began + pause_s
        enough = _MANY if self._works else _FEW
        hopeless = self._waves >= self._options.rounds and self._troubled >= enough
        if hopeless or self._trouble_s > _MAX_TROUBLE_S:
            self._give_up(trouble)
            pause_s = 0.0
        self._last_wave, self._quiet_until = now, now + pause_s

    def suspect(self, location: T) -> None:
        """Note a location that had nothing but trouble; whether the host is to blame shows later."""
        if self.gone is not None:
            self.lost += 1
        else:
            self._suspects.append(location)

    def finish(self) -> None:
        """Note that nothing more will be asked; a host that never gave an answer is as good as gone."""
        if self.gone is None and self._last_trouble is not None and not self._works:
            self._give_up(self._last_trouble)
        self._clear_suspects()

    def _clear_suspects(self) -> None:
        for location in self._suspects:
            self._clear(location)
        self._suspects.clear()

    def _give_up(self, trouble: MirrorTrouble) -> None:
        self.gone = trouble
        self.lost = len(self._suspects)
        self._suspects.clear()
