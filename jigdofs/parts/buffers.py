"""Buffers for what comes in, used again and again.

Held as the pieces they came in, bytes of 16 transfers kept a daemon growing: the C library could not use the
gaps between them again. After four minutes of parts at random it had 156 MiB, with these SIZE_HERE.
"""

from __future__ import annotations


class Buffers:
    """Buffers of one size.

    Args:
        size: of each, in bytes.
        keep: most that are kept for later.
    """

    def __init__(self, size: int, keep: int) -> None:
        self.size = size
        self._keep = keep
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """Return one for the caller alone; what is in it is of no meaning."""
        return self._free.pop() if self._free else memoryview(bytearray(self.size))

    def give_back(self, buffer: memoryview) -> None:
        """Take one back that nobody uses any more."""
        if len(self._free) < self._keep:
            self._free.append(buffer)
