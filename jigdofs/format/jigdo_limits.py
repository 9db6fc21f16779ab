"""How much one .jigdo may hold, together with all that it includes."""

from __future__ import annotations

from jigdofs.errors import FormatError

MAX_BYTES = 32 << 20
"""Largest .jigdo we read, inflated. The largest real one is 3.2 MB (format.md 6); of 200,000 parts with long
names it would have 25 MB. It is held up to three times while it is read."""
MAX_GZIP_MEMBERS = 200_000
"""Most pieces of gzip data: each takes 2 us, however little it holds."""
MAX_PART_LINES = 500_000
"""Most lines of [Parts] we keep. Debian's largest image has some 30,000. Sorting so many takes some 0.5 s."""
MAX_OTHER_LINES = 100_000
"""Most other lines, blank ones and comments too, and lines of [Parts] that no program writes: 2 us each."""
MAX_OTHER_BYTES = 16 << 20
"""Most text in these lines: quotes and options take 40 ns a byte."""
MAX_IMAGES = 100
MAX_LINE_LENGTH = 64 << 10
"""Longest line; the longest real one has 271 bytes, jigdo's GUI cut lines at 16384."""
MAX_MAPPINGS = 64
"""Most locations kept for one part or label; no more would ever be tried."""


class Budget:
    """Bound what a .jigdo may hold together with all that it includes."""

    def __init__(self) -> None:
        self._bytes = MAX_BYTES
        self._parts = MAX_PART_LINES
        self._others = MAX_OTHER_LINES
        self._other_bytes = MAX_OTHER_BYTES

    def spend_bytes(self, count: int, source: str) -> None:
        """Count text."""
        self._bytes -= count
        if self._bytes < 0:
            raise FormatError(f"larger than {MAX_BYTES >> 20} MiB: no .jigdo is", source=source)

    def spend_parts(self, count: int, source: str, number: int) -> None:
        """Count lines of [Parts], the first of which has this number."""
        if count > self._parts:
            message = f"more than {MAX_PART_LINES} parts: no .jigdo has so many"
            raise FormatError(message, source=source, line=number + self._parts)
        self._parts -= count

    def spend_other(self, length: int, source: str, number: int) -> None:
        """Count a line that is looked at by itself, whether it is kept or not."""
        self._others -= 1
        self._other_bytes -= length
        if self._others < 0:
            message = f"more than {MAX_OTHER_LINES} lines beside plain ones of [Parts]: no .jigdo has so many"
            raise FormatError(message, source=source, line=number)
        if self._other_bytes < 0:
            message = (
                f"more than {MAX_OTHER_BYTES >> 20} MiB beside plain lines of [Parts]: no .jigdo has so much"
            )
            raise FormatError(message, source=source, line=number)
