"""When and how far to fetch ahead of a sequential reader: pure, one object per open file handle.

Laziness comes first: somebody who reads one package through must not make us fetch the next one.
So nothing is fetched ahead before a reader has gone through three whole parts without a jump.
"""

from __future__ import annotations

from jigdofs.image.layout import Layout

SLACK_BYTES = 1 << 20
"""How far from the expected place a read still counts as sequential: the kernel's own readahead
sends its requests in parallel, so they arrive out of order."""
EXTENTS_BEFORE = 6
"""Extents a reader must have gone through whole: three parts, each followed by its padding. Ends of
neighbours do not count: the kernel reads whole pages, so it touches them with every part."""
FIRST_BYTES = 1 << 20
MAX_EXTENTS = 256
"""Extents fetched ahead at most: a task each, and more than enough to hide a round trip."""


class Readahead:
    """Follow one reader; its window doubles with each step and collapses with a jump.

    Args:
        layout: of the image being read.
        max_bytes: largest window; 0 turns readahead off.
        limit: image offset beyond which nothing is wanted, such as the end of the file that is read;
            None for the end of the image.
    """

    __slots__ = ("_begin", "_end", "_hinted", "_layout", "_limit", "_max", "_window")

    def __init__(self, layout: Layout, max_bytes: int, limit: int | None = None) -> None:
        self._layout = layout
        self._max = max_bytes
        self._limit = layout.length if limit is None else min(limit, layout.length)
        self._jump(-SLACK_BYTES - 1)  # far from any first read

    def _jump(self, offset: int) -> None:
        self._begin = self._end = self._hinted = offset
        self._window = FIRST_BYTES

    def advance(self, offset: int, size: int) -> tuple[int, int]:
        """Note a read and return the image range (begin, end) to fetch ahead; empty if begin >= end."""
        if not self._end - SLACK_BYTES <= offset <= self._end + SLACK_BYTES:
            self._jump(offset)
        layout = self._layout
        if not self._max or offset + size <= self._end:
            return (0, 0)
        self._end = min(offset + size, self._limit)
        if self._end >= self._limit or self._whole_extents() < EXTENTS_BEFORE:
            return (0, 0)
        # the part that is being read comes as a whole: the window begins behind it, or nothing else would be
        # on its way while a large one is
        index = layout.index_at(self._end - 1) + 1
        last = min(index + MAX_EXTENTS, len(layout))
        target = min(layout.start(index) + min(self._window, self._max), layout.start(last), self._limit)
        begin = max(self._hinted, self._end)
        # in steps of a quarter of what is possible: one look at the layout for several reads
        if target - begin < (target - self._end) // 4:
            return (0, 0)
        self._window *= 2 if self._window < self._max else 1
        self._hinted = max(target, begin)
        return (begin, target)

    def _whole_extents(self) -> int:
        """Count the extents that were gone through from their first byte to their last."""
        layout = self._layout
        first = layout.index_at(self._begin)
        if layout.start(first) < self._begin:
            first += 1
        return layout.index_at(self._end) - first
