"""What a part is: the one value that layout, locations and store have in common."""

from __future__ import annotations

from typing import NamedTuple

from jigdofs.format.checksum import Checksum


class Part(NamedTuple):
    """A component file, the same bytes wherever it lies: checksum and length in bytes."""

    checksum: Checksum
    length: int

    def __str__(self) -> str:
        return f"{self.checksum} ({self.length} bytes)"
