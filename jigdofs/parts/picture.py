"""What of an image is here, as numbers and as a row of cells."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable

from jigdofs.parts.part_index import EXTENTS_BEFORE_PAUSE, PAUSE_S, Extents, Run

MOST_CELLS = 1024
_MOST_OCCURRENCES = 1000
"""Of one part are drawn as it comes, in 1 ms; those of a hostile image are drawn with the next look."""

HERE, PARTLY, IN_FLIGHT, MISSING = "#+>."
"""The letters of a cell: all of its parts are here, some, some are on their way, none."""


class Cells:
    """How an image is divided into cells, and how many bytes of parts each has; made once. Blocks.

    What comes from the template counts in none: there is some between all parts, and it is always here.

    Args:
        extents: of the image.
        numbers: of those that are parts.
    """

    def __init__(self, extents: Extents, numbers: Iterable[int]) -> None:
        self.cell_bytes = max(1, -(-extents.length // MOST_CELLS))
        self.bytes = self.empty(extents)
        for count, number in enumerate(numbers):
            self.add(self.bytes, extents.start(number), extents.start(number + 1))
            if not count % EXTENTS_BEFORE_PAUSE:
                time.sleep(PAUSE_S)

    def empty(self, extents: Extents) -> array[int]:
        """Return a row of as many zeros as there are cells."""
        return array("Q", bytes(8 * max(1, -(-extents.length // self.cell_bytes))))

    def add(self, row: array[int], begin: int, end: int) -> None:
        """Add the bytes of a range to the cells it touches."""
        for cell in range(begin // self.cell_bytes, -(-end // self.cell_bytes)):
            row[cell] += min(end, (cell + 1) * self.cell_bytes) - max(begin, cell * self.cell_bytes)


class Picture:
    """What is here.

    Attributes:
        bytes: of parts that are here, each counted as often as it occurs.
        parts: how many different ones are.
        cells: how the image is divided.

    Args:
        extents: of the image.
        cells: how it is divided.
    """

    def __init__(self, extents: Extents, cells: Cells) -> None:
        self._extents = extents
        self._here = bytearray(len(extents))  # by the first extent of a part
        self._row = cells.empty(extents)
        self.cells = cells
        self.bytes = 0
        self.parts = 0

    def add(self, run: Run, length: int, *, thorough: bool = False) -> bool:
        """Note that a part is here, if that is news.

        Args:
            run: its extents.
            length: of the part.
            thorough: draw all of its occurrences, however many.

        Returns:
            whether all of them are drawn.
        """
        if self._here[run.first]:
            return True
        self._here[run.first] = 1
        self.bytes += length * run.count
        self.parts += 1
        if run.count > _MOST_OCCURRENCES and not thorough:
            return False
        for number in run:
            start = self._extents.start(number)
            self.cells.add(self._row, start, start + length)
        return True

    def drawn(self, count: int, in_flight: Iterable[Run | None]) -> str:
        """Return a row of letters.

        Args:
            count: of cells wanted; there are no more than the image was divided into.
            in_flight: the extents of what is on its way.
        """
        whole, here, size = self.cells.bytes, self._row, len(self._row)
        count = max(1, min(count, size))
        coming = bytearray(size)
        for run in in_flight:
            if run is not None and not self._here[run.first]:
                self._mark_coming(coming, run)
        letters = []
        for cell in range(count):
            begin, end = cell * size // count, (cell + 1) * size // count
            wanted, got = sum(whole[begin:end]), sum(here[begin:end])
            if got >= wanted:
                letters.append(HERE)
            elif coming.find(1, begin, end) >= 0:
                letters.append(IN_FLIGHT)
            else:
                letters.append(PARTLY if got else MISSING)
        return "".join(letters)

    def _mark_coming(self, coming: bytearray, run: Run) -> None:
        cell_bytes = self.cells.cell_bytes
        for number, _ in zip(run, range(_MOST_OCCURRENCES), strict=False):
            begin, end = self._extents.start(number), self._extents.start(number + 1)
            first, last = begin // cell_bytes, (end - 1) // cell_bytes
            coming[first : last + 1] = b"\1" * (last + 1 - first)
