"""When and how far to fetch ahead of a sequential reader: pure, one object per open file handle.

Laziness comes first: somebody who reads one package through must not make us fetch the next one.
So nothing is fetched ahead before a reader has gone through two whole parts without a jump.
"""

from __future__ import annotations

from jigdofs.image.layout import Layout

SLACK_BYTES = 1 << 20
"""How far from the expected place a read still counts as sequential: the kernel's own readahead
sends its requests in parallel, so they arrive out of order."""
EXTENTS_BEFORE = 4
"""Extents a reader must have gone through whole: two parts, each followed by its padding. Ends of
neighbours do not count: the kernel reads whole pages, so it touches them with every part."""
FIRST_BYTES = 1 << 20
MAX_EXTENTS = 256
"""Extents fetched ahead at most: a task each, and more than enough to hide a round trip."""


class Readahead:
    """Follow one reader; its window doubles with each step and collapses with a jump.

    Args:
        layout: of the image being read.
        max_bytes: largest window; 0 turns readahead off.
    """

    __slots__ = ("_begin", "_end", "_hinted", "_layout", "_max", "_window")

    def __init__(self, layout: Layout, max_bytes: int) -> None:
        self._layout = layout
        self._max = max_bytes
        self._jump(0)

    def _jump(self, offset: int) -> None:
        self._begin = self._end = self._hinted = offset
        self._window = FIRST_BYTES

    def advance(self, offset: int, size: int) -> tuple[int, int]:
        """Note a read and return the image range (begin, end) to fetch ahead; empty if begin >= end."""
        if not self._end - SLACK_BYTES <= offset <= self._end + SLACK_BYTES:
            self._jump(offset)
        if offset + size <= self._end:
            return (0, 0)
        layout = self._layout
        self._end = min(offset + size, layout.length)
        if not self._max or self._end >= layout.length:
            return (0, 0)
        first_whole = layout.index_at(self._begin)
        if layout.start(first_whole) < self._begin:
            first_whole += 1
        if layout.index_at(self._end) - first_whole < EXTENTS_BEFORE:
            return (0, 0)
        last = min(layout.index_at(self._end) + MAX_EXTENTS, len(layout))
        target = min(self._end + min(self._window, self._max), layout.start(last))
        begin = max(self._hinted, self._end)
        if target - begin < self._window // 4 and target < layout.length:
            return (0, 0)  # in steps: one look at the layout for several reads
        self._window = min(self._window * 2, self._max)
        self._hinted = target
        return (begin, target)
