"""What readers of one image asked for, and how that went: counted in memory, read by who tells of it.

The counting of one read takes some 0.5 us, of the 25 that a warm one of 128 KiB takes in our process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from jigdofs.rate import Rate

DURATIONS_S = (
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
"""The upper bounds of the histogram's buckets; one more holds what took longer."""


class ReadAccount:
    """The account of one image.

    Attributes:
        reads: that were answered with bytes.
        bytes: in these answers.
        waited_reads: of these, how many waited for a mirror.
        waited_bytes: in the answers of these.
        errors: reads that failed.
        last_error_s: when the last one did, seconds since 1970; 0.0 if none did.
        durations: how many reads took how long, by the buckets of `DURATIONS_S`; failed ones too.
        duration_s: the sum of all these times.
        rate: of `bytes`, by `time.perf_counter`.
    """

    __slots__ = (
        "bytes",
        "duration_s",
        "durations",
        "errors",
        "last_error_s",
        "rate",
        "reads",
        "waited_bytes",
        "waited_reads",
    )

    def __init__(self) -> None:
        self.reads = self.bytes = 0
        self.waited_reads = self.waited_bytes = 0
        self.errors = 0
        self.last_error_s = 0.0
        self.durations = [0] * (len(DURATIONS_S) + 1)
        self.duration_s = 0.0
        self.rate = Rate()

    def answered(self, count: int, began: float, now: float) -> None:
        """Note a read that was answered; times are those of `time.perf_counter`."""
        if now >= self.rate.next_tick:
            self.rate.tick(now, self.bytes)
        self.reads += 1
        self.bytes += count
        took_s = now - began
        self.duration_s += took_s
        self.durations[bisect_left(DURATIONS_S, took_s)] += 1

    def waited(self, count: int) -> None:
        """Note that a read, counted as answered, waited for a mirror."""
        self.waited_reads += 1
        self.waited_bytes += count

    def failed(self, began: float, now: float, clock_s: float) -> None:
        """Note a read that failed; `clock_s` is the time of day."""
        self.errors += 1
        self.last_error_s = clock_s
        self.duration_s += now - began
        self.durations[bisect_left(DURATIONS_S, now - began)] += 1


def summed(accounts: Iterable[ReadAccount]) -> ReadAccount:
    """Return an account of all reads in several; its rate is of no use."""
    total = ReadAccount()
    for one in accounts:
        total.reads += one.reads
        total.bytes += one.bytes
        total.waited_reads += one.waited_reads
        total.waited_bytes += one.waited_bytes
        total.errors += one.errors
        total.last_error_s = max(total.last_error_s, one.last_error_s)
        total.duration_s += one.duration_s
        total.durations = [a + b for a, b in zip(total.durations, one.durations, strict=True)]
    return total


class Waited:
    """Whether one read waited for a mirror.

    Attributes:
        for_a_mirror: it did.
    """

    __slots__ = ("for_a_mirror",)

    def __init__(self) -> None:
        self.for_a_mirror = False

    def had(self, fetched_s: float, began_s: float) -> None:
        """Note when a file was fetched that was needed since `began_s`."""
        if fetched_s >= began_s:
            self.for_a_mirror = True
