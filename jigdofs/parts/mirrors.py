"""What is known of each mirror: how it did, whether to avoid it for now, how many may ask it at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jigdofs.errors import MirrorTrouble
from jigdofs.fetch.url import without_credentials
from jigdofs.parts.locations import Location
from jigdofs.parts.slots import Slots
from jigdofs.rate import Rate

_log = logging.getLogger(__name__)

AVOID_FIRST_S = 5.0
AVOID_MAX_S = 300.0
AVOID_TIMES_AS_LONG = 10
"""As long as it took to show that a mirror is of no use: so at most one read in ten waits for it again."""
WRONG_BEFORE_AVOIDED = 3
SLOW_S = 1.0
"""A failure that took longer is a silence; one that took less costs a reader little when it comes again."""
TOLD_AGAIN_S = 300.0
"""How often the user hears at most of a mirror that fails and works by turns."""
_MOST_RECORDS = 4096  # a hostile .jigdo may name half a million hosts, which took 400 MiB
SPARE_SHARE = 4  # one slot in four is for readers who wait


@dataclass(slots=True)
class Health:
    """The record of one mirror.

    Attributes:
        files: fetched from it and found right.
        bytes: that came from it for these.
        received: bytes that came from it at all, those of no use included.
        failures: since the last success.
        failures_ever: the same since the beginning.
        wrong: answers with wrong content since the last success.
        wrong_ever: the same since the beginning.
        avoided_until: time before which others are tried first.
        asked_until: time before which the server itself asked to be left alone (Retry-After).
        slow: its last failure took long.
        told_at: when the user was told that it is avoided, None if never.
        told: it has not worked since.
    """

    files: int = 0
    bytes: int = 0
    received: int = 0
    failures: int = 0
    failures_ever: int = 0
    wrong: int = 0
    wrong_ever: int = 0
    avoided_until: float = 0.0
    asked_until: float = 0.0
    slow: bool = False
    told_at: float | None = None
    told: bool = False


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
        self.received = 0  # bytes from all of them
        self.rate = Rate()  # of these

    def health(self, mirror: str) -> Health:
        """Return the record of a mirror; of too many, those that were made first are forgotten."""
        health = self._health.get(mirror)
        if health is None:
            while len(self._health) >= _MOST_RECORDS:
                del self._health[next(iter(self._health))]
            health = self._health[mirror] = Health()
        return health

    def records(self) -> dict[str, Health]:
        """Return the records of those mirrors that gave anything, their credentials left out."""
        given = {mirror: health for mirror, health in self._health.items() if health.files}
        return {without_credentials(mirror): health for mirror, health in given.items()}

    def known(self) -> Iterator[tuple[str, Health, float]]:
        """Yield each mirror that was asked, its record and for how many seconds it is still avoided."""
        now = self._clock()
        for mirror, health in self._health.items():
            yield mirror, health, max(0.0, health.avoided_until - now)

    def asked_to_wait_for_s(self, health: Health) -> float:
        """Return for how long a mirror has asked to be left alone."""
        return max(0.0, health.asked_until - self._clock())

    def came(self, health: Health, count: int, now: float) -> None:
        """Note bytes as they come in from a mirror at a time, whether or not they will be of use."""
        if now >= self.rate.next_tick:
            self.rate.tick(now, self.received)
        self.received += count
        health.received += count

    @property
    def bytes_per_s(self) -> float:
        """How fast bytes come in from all mirrors now."""
        return self.rate.per_s(self._clock(), self.received)

    def slots(self, host: str) -> Slots:
        """Return the slots of a host."""
        slots = self._slots.get(host)
        if slots is None:
            if len(self._slots) >= _MOST_RECORDS:
                self._slots = {other: held for other, held in self._slots.items() if not held.idle}
            slots = self._slots[host] = Slots(self._connections, self._connections // SPARE_SHARE)
        return slots

    def limit(self, connections: int) -> None:
        """Have so many ask one host at once from now on."""
        self._connections = connections
        for slots in self._slots.values():
            slots.resize(connections, connections // SPARE_SHARE)

    def avoided(self, mirror: str) -> bool:
        """Tell whether others are to be tried first."""
        health = self._health.get(mirror)
        return health is not None and health.avoided_until > self._clock()

    def order(self, locations: Iterable[Location]) -> list[Location]:
        """Return the locations in their order, those of avoided mirrors last, and of these the slow ones."""

        def key(location: Location) -> tuple[bool, bool]:
            avoided = self.avoided(location.mirror)
            return avoided, avoided and self.health(location.mirror).slow

        return sorted(locations, key=key)

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
        health.slow = health.told = False
        health.avoided_until = 0.0

    def failed(
        self, mirror: str, trouble: MirrorTrouble, *, took_s: float = 0.0, by_user: bool = False
    ) -> None:
        """Note that a mirror could not be reached, was too slow or said it is overloaded.

        Args:
            mirror: which.
            trouble: what it was.
            took_s: how long it took to show.
            by_user: the user asked for this mirror, so he is told.
        """
        health = self.health(mirror)
        health.failures += 1
        health.failures_ever += 1
        health.slow = took_s > SLOW_S
        pause = max(AVOID_FIRST_S * 2 ** min(health.failures - 1, 16), AVOID_TIMES_AS_LONG * took_s)
        pause = min(pause, AVOID_MAX_S)
        if trouble.retry_after_s is not None:
            pause = min(trouble.retry_after_s, AVOID_MAX_S)
            health.asked_until = self._clock() + pause
        if not self.avoided(mirror):
            name = without_credentials(mirror)
            level = logging.WARNING if by_user and self._worth_telling(health) else logging.INFO
            _log.log(level, "mirror %s is avoided for %.0f s: %s", name, pause, trouble.reason)
        health.avoided_until = max(health.avoided_until, self._clock() + pause)

    def _worth_telling(self, health: Health) -> bool:
        """Tell whether the user does not know yet that a mirror fails, and note that he does now."""
        now = self._clock()
        if health.told or (health.told_at is not None and now < health.told_at + TOLD_AGAIN_S):
            return False
        health.told, health.told_at = True, now
        return True

    def blame(self, mirror: str) -> int:
        """Note wrong content, and return how often that was; a mirror that keeps sending it is avoided."""
        health = self.health(mirror)
        health.wrong += 1
        health.wrong_ever += 1
        if health.wrong >= WRONG_BEFORE_AVOIDED:
            health.avoided_until = max(health.avoided_until, self._clock() + AVOID_FIRST_S * health.wrong)
        return health.wrong_ever
