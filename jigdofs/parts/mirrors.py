"""What is known of each mirror: how it did, whether to avoid it for now, how many may ask it at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jigdofs.errors import MirrorTrouble
from jigdofs.fetch.url import without_credentials
from jigdofs.parts.locations import Location
from jigdofs.parts.slots import Slots

_log = logging.getLogger(__name__)

AVOID_FIRST_S = 5.0
AVOID_MAX_S = 300.0
WRONG_BEFORE_AVOIDED = 3
SPARE_SHARE = 4  # one slot in four is for readers who wait


@dataclass(slots=True)
class Health:
    """The record of one mirror.

    Attributes:
        files: fetched from it and found right.
        bytes: that came from it for these.
        failures: since the last success.
        wrong: answers with wrong content since the last success.
        wrong_ever: the same since the beginning.
        avoided_until: time before which others are tried first.
        asked_until: time before which the server itself asked to be left alone (Retry-After).
    """

    files: int = 0
    bytes: int = 0
    failures: int = 0
    wrong: int = 0
    wrong_ever: int = 0
    avoided_until: float = 0.0
    asked_until: float = 0.0


class Mirrors:
    """All mirrors of the daemon.

    Args:
        connections: to one host at a time.
        clock: seconds, such as `trio.current_time`.
    """

    def __init__(self, connections: int, clock: Callable[[], float]) -> None:
        self._connections = connections
        self._clock = clock
        self._health: dict[str, Health] = {}
        self._slots: dict[str, Slots] = {}

    def health(self, mirror: str) -> Health:
        """Return the record of a mirror."""
        return self._health.setdefault(mirror, Health())

    def records(self) -> dict[str, Health]:
        """Return the records of those mirrors that gave anything, their credentials left out."""
        given = {mirror: health for mirror, health in self._health.items() if health.files}
        return {without_credentials(mirror): health for mirror, health in given.items()}

    def known(self) -> Iterator[tuple[str, Health, float]]:
        """Yield each mirror that was asked, its record and for how many seconds it is still avoided."""
        now = self._clock()
        for mirror, health in self._health.items():
            yield mirror, health, max(0.0, health.avoided_until - now)

    def slots(self, host: str) -> Slots:
        """Return the slots of a host."""
        slots = self._slots.get(host)
        if slots is None:
            slots = self._slots[host] = Slots(self._connections, self._connections // SPARE_SHARE)
        return slots

    def avoided(self, mirror: str) -> bool:
        """Tell whether others are to be tried first."""
        return self.health(mirror).avoided_until > self._clock()

    def order(self, locations: Iterable[Location]) -> list[Location]:
        """Return the locations in their order, those of avoided mirrors last."""
        return sorted(locations, key=lambda location: self.avoided(location.mirror))

    def asked_to_wait_s(self, locations: Iterable[Location]) -> float:
        """Return for how long all mirrors of these have asked to be left alone."""
        now = self._clock()
        return min(
            (max(0.0, self.health(location.mirror).asked_until - now) for location in locations), default=0.0
        )

    def succeeded(self, mirror: str, length: int) -> None:
        """Note a file that was right."""
        health = self.health(mirror)
        if health.failures >= 2:
            _log.info("mirror %s works again", without_credentials(mirror))
        health.files += 1
        health.bytes += length
        health.failures = health.wrong = 0
        health.avoided_until = 0.0

    def failed(self, mirror: str, trouble: MirrorTrouble) -> None:
        """Note that a mirror could not be reached, was too slow or said it is overloaded."""
        health = self.health(mirror)
        health.failures += 1
        pause = min(AVOID_FIRST_S * 2 ** min(health.failures - 1, 16), AVOID_MAX_S)
        if trouble.retry_after_s is not None:
            pause = min(trouble.retry_after_s, AVOID_MAX_S)
            health.asked_until = self._clock() + pause
        if not self.avoided(mirror):
            name = without_credentials(mirror)
            _log.info("mirror %s is avoided for %g s: %s", name, pause, trouble.reason)
        health.avoided_until = max(health.avoided_until, self._clock() + pause)

    def blame(self, mirror: str) -> int:
        """Note wrong content, and return how often that was; a mirror that keeps sending it is avoided."""
        health = self.health(mirror)
        health.wrong += 1
        health.wrong_ever += 1
        if health.wrong >= WRONG_BEFORE_AVOIDED:
            health.avoided_until = max(health.avoided_until, self._clock() + AVOID_FIRST_S * health.wrong)
        return health.wrong_ever
