"""Where each byte of the image comes from: pure arithmetic over prefix sums.

Invariant of this file: the slices of a read are contiguous, in order, none is empty, and together
they are exactly the read clamped to the image.

The columns are packed arrays because a Blu-ray has 120,000 extents: 33 bytes each here, some 200 as objects.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.format.template import Columns, Entry, ImageInfo, UnmatchedData


class Slice(NamedTuple):
    """What one read needs of one extent.

    Attributes:
        part: the part it comes from, or None for raw data.
        offset: where it begins within the part, or within the raw data.
        length: bytes, never 0.
    """

    part: Part | None
    offset: int
    length: int


class Layout:
    """The extents of an image, in order, and how to find them by offset."""

    __slots__ = ("_checksums", "_raw_offsets", "_starts", "length", "raw_length")

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Take a template's entries in; image-infos and empty extents need no place here."""
        self._starts = array("Q")
        # per extent: the offset in the raw data, or -1 for a part
        self._raw_offsets = array("q")
        # per extent: its checksum, or None for raw data
        self._checksums: _ChecksumColumn | Columns
        self._checksums = checksums = _ChecksumColumn()
        position = raw = 0
        for entry in entries:
            if isinstance(entry, ImageInfo) or not entry.length:
                continue
            self._starts.append(position)
            if isinstance(entry, UnmatchedData):
                self._raw_offsets.append(raw)
                checksums.append(None)
                raw += entry.length
            else:
                self._raw_offsets.append(-1)
                checksums.append(entry.checksum)
            position += entry.length
        self._starts.append(position)  # sentinel: where the image ends
        self.length = position
        self.raw_length = raw

    @classmethod
    def of(cls, columns: Columns) -> Layout:
        """Take a template's columns over as they are: no time and no memory, however many extents."""
        layout = cls(())
        layout._starts = columns.starts
        layout._raw_offsets = columns.raw_offsets
        layout._checksums = columns
        layout.length = columns.starts[-1]
        layout.raw_length = columns.raw_length
        return layout

    def __len__(self) -> int:
        """Count the extents."""
        return len(self._raw_offsets)

    def index_at(self, offset: int) -> int:
        """Return the number of the extent that holds this offset; `offset` must lie in the image."""
        return bisect_right(self._starts, offset) - 1

    def start(self, index: int) -> int:
        """Return the image offset at which an extent begins; `len(layout)` gives the image's end."""
        return self._starts[index]

    def part(self, index: int) -> Part | None:
        """Return the part of an extent, or None where it is unmatched data."""
        checksum = self._checksums.checksum(index)
        if checksum is None:
            return None
        return Part(checksum, self._starts[index + 1] - self._starts[index])

    def slices(self, offset: int, size: int) -> Iterator[Slice]:
        """Yield what the read of `size` bytes at `offset` needs, clamped to the image."""
        end = min(offset + size, self.length)
        if offset < 0 or offset >= end:
            return
        starts = self._starts
        index = bisect_right(starts, offset) - 1
        while offset < end:
            start = starts[index]
            stop = min(starts[index + 1], end)
            raw = self._raw_offsets[index]
            if raw >= 0:
                yield Slice(None, raw + offset - start, stop - offset)
            else:
                yield Slice(self.part(index), offset - start, stop - offset)
            offset = stop
            index += 1

    def parts(self) -> Iterator[tuple[int, Part]]:
        """Yield image offset and part of every extent that is a part; a part may come repeatedly."""
        for index in range(len(self)):
            part = self.part(index)
            if part is not None:
                yield self._starts[index], part

    def distinct_parts(self) -> dict[Checksum, Part]:
        """Return each part once, in the order of first occurrence."""
        distinct: dict[Checksum, Part] = {}
        for _, part in self.parts():
            distinct.setdefault(part.checksum, part)
        return distinct


class _ChecksumColumn:
    """A column of optional checksums of both sizes, packed: 17 or 33 bytes a row."""

    __slots__ = ("_digests", "_rows")

    def __init__(self) -> None:
        self._digests = bytearray()
        self._rows = array("q")  # offset in _digests * 2 + (1 for SHA-256), or -1

    def append(self, checksum: Checksum | None) -> None:
        if checksum is None:
            self._rows.append(-1)
            return
        is_sha256 = checksum.algorithm is Algorithm.SHA256
        self._rows.append(len(self._digests) << 1 | is_sha256)
        self._digests += checksum.digest

    def checksum(self, index: int) -> Checksum | None:
        row = self._rows[index]
        if row < 0:
            return None
        at = row >> 1
        return Checksum(bytes(self._digests[at : at + (32 if row & 1 else 16)]))
