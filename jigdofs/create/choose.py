"""Which of the occurrences that were found become parts. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np


class Occurrence(NamedTuple):
    """A file whose bytes, all of them, stand at an offset of the image.

    Attributes:
        start: first byte in the image.
        length: of the file.
        file: its number.
    """

    start: int
    length: int
    file: int


def choose(found: Collection[Occurrence]) -> list[Occurrence]:
    """Return those that cover the most bytes without overlapping, in order; of equals the fewest.

    An archive so wins against the files in it, and no rule of thumb covers more: whatever another program
    chooses among the same occurrences, it needs no less raw data. (Weighted interval scheduling: best[n] is
    the best choice among the n that end first.)
    """
    ordered = sorted(found, key=lambda one: (one.start + one.length, one.start, one.file))
    ends = np.array([one.start + one.length for one in ordered], np.int64)
    starts = np.array([one.start for one in ordered], np.int64)
    before = np.searchsorted(ends, starts, side="right").tolist()
    # bytes covered, then how few: one number compares faster than a pair, and there are less than 2^40
    best = [0]
    for one, earlier in zip(ordered, before, strict=True):
        best.append(max(best[-1], best[earlier] + (one.length << 40) - 1))
    chosen = []
    at = len(ordered)
    while at:
        if best[at] == best[at - 1]:
            at -= 1
        else:
            chosen.append(ordered[at - 1])
            at = before[at - 1]
    return chosen[::-1]
