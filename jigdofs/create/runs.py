"""Runs: stretches in which a short pattern repeats, zeros mostly. Pure, apart from a given way to read.

A window inside a run looks like every other one, so a hash of it tells a pattern, and no place. What tells
the place of a file that begins with a run is where the run ends, of one that ends with it, where it begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jigdofs.create.windows import GRID, Bytes

MAX_PERIOD = GRID - 1
"""Longest pattern, bytes. Windows with a longer one are no more than one in every GRID bytes."""
_FIRST_PIECE = 4 << 10
_MAX_PIECE = 1 << 20

Read = Callable[[int, int], bytes]
"""Return so many bytes from an offset on; both lie within what is read."""


class Run(NamedTuple):
    """A stretch in which every byte equals the one `period` before it.

    Attributes:
        start: its first byte.
        end: behind its last byte.
        period: of the pattern, the shortest there is.
    """

    start: int
    end: int
    period: int


def find_run(head: bytes, at_least: int) -> Run | None:
    """Return the run of at least so many bytes in the beginning of a file, if it has one.

    Args:
        head: so short that there is but one: less than twice `at_least`.
        at_least: bytes, more than twice MAX_PERIOD.
    """
    data = np.frombuffer(head, np.uint8)
    for period in range(1, MAX_PERIOD + 1):
        breaks = np.flatnonzero(data[period:] != data[:-period])
        borders = np.concatenate(([-1], breaks, [len(data) - period]))
        longest = int(np.argmax(np.diff(borders)))
        start, end = int(borders[longest]) + 1, int(borders[longest + 1]) + period
        if end - start >= at_least:
            return Run(start, end, period)
    return None


def pattern_of(head: bytes, run: Run) -> bytes:
    """Return what repeats, turned so that it is the same wherever in the pattern a run begins."""
    period = run.period
    twice = head[run.start : run.start + period] * 2
    return min(twice[turn : turn + period] for turn in range(period))


def run_end(read: Read, at: int, period: int, size: int) -> int:
    """Return where a run ends that includes the `period` bytes at an offset.

    Args:
        read: what to look into.
        at: within the run.
        period: of the run.
        size: of what is read.
    """
    piece = _FIRST_PIECE
    while at + period < size:
        data = _array(read(at, min(piece + period, size - at)))
        breaks = data[period:] != data[:-period]
        first = int(np.argmax(breaks))
        if breaks[first]:
            return at + period + first
        at += len(data) - period
        piece = min(2 * piece, _MAX_PIECE)
    return size


def run_start(read: Read, at: int, period: int) -> int:
    """Return where a run begins that includes the `period` bytes at an offset."""
    piece = _FIRST_PIECE
    while at > 0:
        begin = max(at - piece, 0)
        data = _array(read(begin, at - begin + period))
        breaks = (data[period:] != data[:-period])[::-1]
        first = int(np.argmax(breaks))
        if breaks[first]:
            return at - first
        at = begin
        piece = min(2 * piece, _MAX_PIECE)
    return 0


def _array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)
