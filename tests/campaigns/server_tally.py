"""What came of the reads of the servers campaign, held against what is promised."""

from collections import Counter
from dataclasses import dataclass, field

from tests.campaigns.server_documents import Trials
from tests.kit.figures import Figure

MAX_TOLD = 20
"""Promises broken that are told in full; the others are counted."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read, and what may come of it.

    Attributes:
        number: in its phase.
        offset: in the image.
        length: in bytes.
        touched: the parts it needs.
        doubtful: those of them that no healthy location has.
        forbidden: one of them is to be had by forbidden redirects only.
    """

    number: int
    offset: int
    length: int
    touched: tuple[str, ...]
    doubtful: tuple[str, ...]
    forbidden: bool


@dataclass(slots=True)
class Tally:
    """What came of the reads.

    Attributes:
        outcomes: how many were `right` or an `error`; and how many broke a promise: `wrong` bytes, a
            `lost` read in spite of a healthy location, a `forbidden` redirect followed, `late` ends; and
            mounts that were `stuck` when they were to end.
        longest_s: of those that a healthy location was left for, and of all.
        broken: the first promises broken, with what does them again.
        asked: requests that servers had for parts.
        kinds: what mirrors did, how often that was drawn.
        leaks: passwords that came to whom they were not given.
        downgrades: requests over http by way of https.
        log: errors in the log of mounts once something broke.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: dict[str, float] = field(default_factory=lambda: {"healthy": 0.0, "all": 0.0})
    broken: list[str] = field(default_factory=list)
    asked: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    leaks: int = 0
    downgrades: int = 0
    log: list[str] = field(default_factory=list)

    def tell(self, what: str, text: str) -> None:
        """Count a promise broken."""
        self.outcomes[what] += 1
        if len(self.broken) < MAX_TOLD:
            self.broken.append(f"{what}: {text}")


def figures(tally: Tally, trials: Trials) -> list[Figure]:
    """Hold what came out against what is promised."""
    counted = tally.outcomes
    return [
        Figure(1, "reads over faulty servers that gave wrong bytes", counted["wrong"], "<= 0", "reads"),
        Figure(1, "reads that failed with a healthy location left", counted["lost"], "<= 0", "reads"),
        Figure(1, "reads that ended too late", counted["late"], "<= 0", "reads"),
        Figure(1, "parts had by redirects to file: or from https", counted["forbidden"], "<= 0", "reads"),
        Figure(1, "requests over http by way of https", tally.downgrades, "<= 0", "requests"),
        Figure(1, "passwords sent or told to others", tally.leaks + counted["leaked"], "<= 0", "times"),
        Figure(1, "mounts that did not end when told to", counted["stuck"], "<= 0", "mounts"),
        Figure(1, "mounts over faults that broke a promise", len(trials.broken), "<= 0", "mounts"),
    ]
