"""What a .template is made of: header, compressed chunks and the table of entries (format.md 1). Pure.

The tables are the format: `template_reader` and `template_writer` both use them.
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jigdofs.errors import FormatError
from jigdofs.format.checksum import Checksum

MAX_DESC_BYTES = 32 << 20
"""Largest DESC part we read: more than `MAX_ENTRIES` need. jigdo-file stops at 256 MiB (format.md 1.1)."""
MAX_ENTRIES = 520_000
"""Most entries we read: each part and a gap behind it. A Blu-ray has 120,000."""
MAX_PARTS = 250_000
"""Most entries that are parts; Debian's largest image has 60,000. Whoever fetches or lists them holds some
600 bytes for each: `download` of 300,000 reached 249 MiB, of a million 720."""
MAX_CHUNKS = 1 << 17
"""Most chunks we list; a 25 GB image has some 150. Each takes some 340 bytes, so all 45 MB."""
MAX_IMAGE_INFOS = 1 << 12
"""Most entries that describe the whole image; jigdo-file writes one, libjte one for each algorithm."""

HEADER_PREFIX = b"JigsawDownload template "
CHUNK_HEADER_SIZE = 16
DESC_HEADER_SIZE = 10  # "DESC" and its length
DESC_OVERHEAD = DESC_HEADER_SIZE + 6  # its length stands again at the end


class Compression(enum.Enum):
    """How a chunk is compressed; the value is the id in the file."""

    ZLIB = b"DATA"
    BZIP2 = b"BZIP"


class Chunk(NamedTuple):
    """A compressed piece of the raw data, readable by itself.

    Attributes:
        compression: zlib or bzip2.
        offset: where the compressed bytes begin in the template.
        size: how many compressed bytes.
        length: how many bytes of raw data it inflates to.
    """

    compression: Compression
    offset: int
    size: int
    length: int


class UnmatchedData(NamedTuple):
    """Bytes of the image that are kept in the template."""

    length: int


class MatchedFile(NamedTuple):
    """One occurrence of a part in the image.

    Attributes:
        length: bytes.
        checksum: of the whole part; the only thing that decides.
        rsync64: of its first `block_length` bytes; a hint, often wrong (format.md 1.2). None in 1.0.
        written: only in a .tmp: the bytes are already in place.
    """

    length: int
    checksum: Checksum
    rsync64: bytes | None = None
    written: bool = False


class ImageInfo(NamedTuple):
    """Length and checksum of the whole image.

    Attributes:
        length: bytes.
        checksum: of the image.
        block_length: window of rsync64; 0 means there is none.
    """

    length: int
    checksum: Checksum
    block_length: int = 0


Entry = UnmatchedData | MatchedFile | ImageInfo


class EntryType(enum.IntEnum):
    """First byte of an entry."""

    IMAGE_INFO_OLD = 1
    UNMATCHED_DATA = 2
    MATCHED_FILE_OLD = 3
    WRITTEN_FILE_OLD = 4
    IMAGE_INFO_MD5 = 5
    MATCHED_FILE_MD5 = 6
    WRITTEN_FILE_MD5 = 7
    IMAGE_INFO_SHA256 = 8
    MATCHED_FILE_SHA256 = 9
    WRITTEN_FILE_SHA256 = 10


# u48 has no struct code: it is written as u32 (low), u16 (high)
U48 = struct.Struct("<IH")
ENTRY_LAYOUT = {
    EntryType.IMAGE_INFO_OLD: struct.Struct("<BIH16s"),
    EntryType.UNMATCHED_DATA: struct.Struct("<BIH"),
    EntryType.MATCHED_FILE_OLD: struct.Struct("<BIH16s"),
    EntryType.WRITTEN_FILE_OLD: struct.Struct("<BIH16s"),
    EntryType.IMAGE_INFO_MD5: struct.Struct("<BIH16sI"),
    EntryType.MATCHED_FILE_MD5: struct.Struct("<BIH8s16s"),
    EntryType.WRITTEN_FILE_MD5: struct.Struct("<BIH8s16s"),
    EntryType.IMAGE_INFO_SHA256: struct.Struct("<BIH32sI"),
    EntryType.MATCHED_FILE_SHA256: struct.Struct("<BIH8s32s"),
    EntryType.WRITTEN_FILE_SHA256: struct.Struct("<BIH8s32s"),
}
IMAGE_INFO = {EntryType.IMAGE_INFO_OLD, EntryType.IMAGE_INFO_MD5, EntryType.IMAGE_INFO_SHA256}
_WRITTEN = {EntryType.WRITTEN_FILE_OLD, EntryType.WRITTEN_FILE_MD5, EntryType.WRITTEN_FILE_SHA256}
_OLD = {EntryType.IMAGE_INFO_OLD, EntryType.MATCHED_FILE_OLD, EntryType.WRITTEN_FILE_OLD}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the bytes of an image come from, as columns: 20 bytes an extent besides its entry, no objects.

    An extent is an entry that has any bytes of the image; image-infos and empty entries are none.

    Attributes:
        starts: the offset in the image at which each extent begins; one more, where the image ends.
        raw_offsets: where its bytes begin in the raw data, or -1 for a part.
        rows: where its entry begins in `desc`.
        raw_length: bytes of the image that are raw data.
        desc: the packed entries.
    """

    starts: array[int]
    raw_offsets: array[int]
    rows: array[int]
    raw_length: int
    desc: bytes

    def checksum(self, index: int) -> Checksum | None:
        """Return the checksum of an extent that is a part; None where it is raw data."""
        if self.raw_offsets[index] >= 0:
            return None
        row = self.rows[index]
        kind = self.desc[row]
        end = row + ENTRY_SIZES[kind]
        return Checksum(self.desc[end - _DIGEST_SIZES[kind] : end])


@dataclass(frozen=True, slots=True)
class Template:
    """What a template says about its image; the compressed bytes stay in the file.

    Attributes:
        version: of the format, as the header has it, such as `1.2`; never decisive.
        creator: the program that wrote it.
        chunks: in file order; together they inflate to the raw data.
        images: every image-info entry; the last describes the image, others agree on its length.
        desc: the packed entries, read again by `entries`: 200,000 parts take 10 MB this way.
        columns: what `desc` says, for whoever looks bytes up.
    """

    source: str
    version: str
    creator: str
    chunks: tuple[Chunk, ...]
    images: tuple[ImageInfo, ...]
    desc: bytes
    columns: Columns

    @property
    def image_length(self) -> int:
        """Bytes of the image."""
        return self.images[-1].length

    def entries(self) -> Iterator[Entry]:
        """Yield the entries in image order."""
        return read_entries(self.desc, source=self.source)


def read_u48(data: bytes, at: int = 0) -> int:
    """Read a six-byte little-endian number."""
    low, high = U48.unpack_from(data, at)
    return int(low) | int(high) << 32


def read_entries(desc: bytes, *, source: str, offset: int = 0) -> Iterator[Entry]:
    """Decode packed entries one by one.

    Args:
        desc: the entries alone, without the framing of the DESC part.
        source: the file, for messages.
        offset: where `desc` begins in it, for messages.

    Raises:
        FormatError: an unknown entry type, an entry cut short, or too many entries.
    """
    at = parts = 0
    end = len(desc)
    for _ in range(MAX_ENTRIES):
        if at >= end:
            return
        kind = desc[at]
        layout = _LAYOUTS.get(kind)
        if layout is None or at + layout.size > end:
            raise no_entry(kind, source, offset + at)
        _, low, high, *rest = layout.unpack_from(desc, at)
        length = low | high << 32
        if kind == EntryType.UNMATCHED_DATA:
            yield UnmatchedData(length)
        elif kind in IMAGE_INFO:
            yield ImageInfo(length, Checksum(rest[0]), 0 if kind in _OLD else rest[1])
        else:
            parts += 1
            if parts > MAX_PARTS:
                raise too_many("parts", MAX_PARTS, source, offset + at)
            rsync64 = None if kind in _OLD else rest[0]
            yield MatchedFile(length, Checksum(rest[-1]), rsync64, kind in _WRITTEN)
        at += layout.size
    if at < end:
        raise too_many("entries", MAX_ENTRIES, source, offset + at)


def too_many(what: str, most: int, source: str, offset: int) -> FormatError:
    """Say which limit a template goes beyond."""
    return FormatError(f"more than {most} {what}: no template has so many", source=source, offset=offset)


def no_entry(kind: int, source: str, offset: int) -> FormatError:
    """Return the error for an entry of that kind, at that offset in the file, that cannot be read."""
    message = "an entry is cut short" if kind in _LAYOUTS else f"unknown entry type {kind}"
    return FormatError(message, source=source, offset=offset)


_LAYOUTS = {int(kind): layout for kind, layout in ENTRY_LAYOUT.items()}
ENTRY_SIZES = bytes(_LAYOUTS[kind].size if kind in _LAYOUTS else 0 for kind in range(256))
# a part's digest stands last in its entry
_DIGEST_SIZES = {kind: 32 if EntryType(kind).name.endswith("SHA256") else 16 for kind in _LAYOUTS}
