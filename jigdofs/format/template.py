"""The .template file: header, compressed chunks and the table of entries (format.md 1).

Rules of this file:
* The tables at the top are the format; the reader below and `template_writer` both use them.
* The reader only seeks and reads what it must: chunk headers and the DESC part, never a chunk.
* Numbers from the file are believed only after they were held against the file's size.
"""

from __future__ import annotations

import enum
import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from jigdofs.errors import FormatError
from jigdofs.format.checksum import Checksum

MAX_DESC_BYTES = 64 << 20
"""Largest DESC part we read: 1.3 million parts. jigdo-file stops at 256 MiB (format.md 1.1)."""
MAX_CHUNKS = 1 << 20
"""Most chunks we list; a 25 GB image has some 150."""
MAX_IMAGE_INFOS = 1 << 12
"""Most entries that describe the whole image; jigdo-file writes one, libjte one for each algorithm."""

HEADER_PREFIX = b"JigsawDownload template "
CHUNK_HEADER_SIZE = 16
_DESC_HEADER_SIZE = 10  # "DESC" and its length
DESC_OVERHEAD = _DESC_HEADER_SIZE + 6  # its length stands again at the end


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
_IMAGE_INFO = {EntryType.IMAGE_INFO_OLD, EntryType.IMAGE_INFO_MD5, EntryType.IMAGE_INFO_SHA256}
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
        end = row + _SIZES[kind]
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
        FormatError: an unknown entry type, or an entry cut short.
    """
    at = 0
    end = len(desc)
    while at < end:
        kind = desc[at]
        layout = _LAYOUTS.get(kind)
        if layout is None or at + layout.size > end:
            raise _no_entry(kind, source, offset + at)
        _, low, high, *rest = layout.unpack_from(desc, at)
        length = low | high << 32
        if kind == EntryType.UNMATCHED_DATA:
            yield UnmatchedData(length)
        elif kind in _IMAGE_INFO:
            yield ImageInfo(length, Checksum(rest[0]), 0 if kind in _OLD else rest[1])
        elif kind in _OLD:
            yield MatchedFile(length, Checksum(rest[0]), None, kind in _WRITTEN)
        else:
            yield MatchedFile(length, Checksum(rest[1]), rest[0], kind in _WRITTEN)
        at += layout.size


def _no_entry(kind: int, source: str, offset: int) -> FormatError:
    message = "an entry is cut short" if kind in _LAYOUTS else f"unknown entry type {kind}"
    return FormatError(message, source=source, offset=offset)


_LAYOUTS = {int(kind): layout for kind, layout in ENTRY_LAYOUT.items()}
_SIZES = bytes(_LAYOUTS[kind].size if kind in _LAYOUTS else 0 for kind in range(256))
# a part's digest stands last in its entry
_DIGEST_SIZES = {kind: 32 if EntryType(kind).name.endswith("SHA256") else 16 for kind in _LAYOUTS}
_UNMATCHED = int(EntryType.UNMATCHED_DATA)
_TOO_LONG = 1 << 48
"""No image has so many bytes, as its own entry could not say so."""


def read_template(file: BinaryIO, source: str) -> Template:
    """Read everything but the chunks' contents.

    Args:
        file: the template, seekable.
        source: its path or URL, for messages.

    Raises:
        FormatError: it is no template, or a damaged one; the message names the offset.
    """
    version, creator = _read_header(file, source)
    start = file.tell()
    offset, desc = read_desc(file, source, start)
    chunks = tuple(_read_chunks(file, start, offset - _DESC_HEADER_SIZE, source))
    raw = sum(chunk.length for chunk in chunks)
    columns, images = _read_columns(desc, raw, source=source, offset=offset)
    return Template(source, version, creator, chunks, images, desc, columns)


def has_header(file: BinaryIO) -> bool:
    """Tell whether a file begins like a template."""
    try:
        _read_header(file, "")
    except FormatError:
        return False
    return True


def _read_header(file: BinaryIO, source: str) -> tuple[str, str]:
    """Read the three lines; libjte leaves a blank before each CR LF."""
    file.seek(0)
    first = file.readline(1024)
    file.readline(4096)
    third = file.readline(4)
    if not first.startswith(HEADER_PREFIX) or not first.endswith(b"\n") or third != b"\r\n":
        raise FormatError("is not a template file", source=source, offset=0)
    words = first[len(HEADER_PREFIX) :].decode("latin-1").split()
    return (words[0] if words else "", " ".join(words[1:]))


def read_desc(file: BinaryIO, source: str, start: int = 0) -> tuple[int, bytes]:
    """Find the DESC part through the length in the last six bytes, in a .template or a .tmp.

    Args:
        file: seekable.
        source: its path or URL, for messages.
        start: nothing of the part can lie before this offset.

    Returns:
        Offset of the packed entries, and the entries.

    Raises:
        FormatError: there is no DESC part, or a damaged one.
    """
    size = file.seek(0, os.SEEK_END)
    if size - start < DESC_OVERHEAD:
        raise FormatError("is cut short: no DESC part", source=source, offset=size)
    file.seek(size - 6)
    length = read_u48(file.read(6))
    if not DESC_OVERHEAD <= length <= size - start:
        raise FormatError(
            "invalid template data: it is damaged, cut short, or has something behind its end",
            source=source,
            offset=size - 6,
        )
    if length > MAX_DESC_BYTES:
        raise FormatError(f"more than {MAX_DESC_BYTES >> 20} MiB of entries", source=source, offset=size - 6)
    offset = size - length
    file.seek(offset)
    desc = file.read(length)
    if len(desc) != length or desc[:4] != b"DESC" or read_u48(desc, 4) != length:
        raise FormatError("invalid template data: no DESC part", source=source, offset=offset)
    return offset + _DESC_HEADER_SIZE, desc[_DESC_HEADER_SIZE:-6]


def _read_chunks(file: BinaryIO, at: int, end: int, source: str) -> Iterator[Chunk]:
    """Walk the chunk headers from `at` to `end`; empty chunks are passed over."""
    for _ in range(MAX_CHUNKS):
        if at == end:
            return
        file.seek(at)
        header = file.read(CHUNK_HEADER_SIZE)
        if len(header) < CHUNK_HEADER_SIZE or header[:4] not in _COMPRESSIONS:
            raise FormatError("invalid template data: no DATA, BZIP or DESC part", source=source, offset=at)
        part_length = read_u48(header, 4)
        length = read_u48(header, 10)
        if not CHUNK_HEADER_SIZE <= part_length <= end - at:
            raise FormatError("a chunk reaches beyond its place", source=source, offset=at)
        if length:
            yield Chunk(
                _COMPRESSIONS[header[:4]], at + CHUNK_HEADER_SIZE, part_length - CHUNK_HEADER_SIZE, length
            )
        at += part_length
    raise FormatError(f"more than {MAX_CHUNKS} chunks", source=source, offset=at)


_COMPRESSIONS = {compression.value: compression for compression in Compression}


def _image_info(entry: bytes, before: int, source: str, offset: int) -> ImageInfo:
    """Read what describes the whole image, after so many that do, too."""
    (info,) = read_entries(entry, source=source, offset=offset)
    assert isinstance(info, ImageInfo)
    if before >= MAX_IMAGE_INFOS:
        raise FormatError("more descriptions of the image than any has", source=source, offset=offset)
    return info


def _read_columns(
    desc: bytes, raw_there: int, *, source: str, offset: int
) -> tuple[Columns, tuple[ImageInfo, ...]]:
    """Read all entries and hold them against each other and against the chunks; return the image-infos, too.

    Args:
        desc: the packed entries.
        raw_there: bytes of raw data that the chunks hold.
        source: the file, for messages.
        offset: where `desc` begins in it, for messages.
    """
    starts, raw_offsets, rows = array("Q"), array("q"), array("I")
    images: list[ImageInfo] = []
    at = position = raw = kind = 0
    end = len(desc)
    while at < end:  # 120,000 entries take 0.2 us each here, 0.5 us by way of `read_entries`
        kind = desc[at]
        after = at + _SIZES[kind]
        if after == at or after > end:
            raise _no_entry(kind, source, offset + at)
        length = int.from_bytes(desc[at + 1 : at + 7], "little")
        if kind in _IMAGE_INFO:
            images.append(_image_info(desc[at:after], len(images), source, offset + at))
        elif length:
            if position < _TOO_LONG:
                starts.append(position)
                raw_offsets.append(raw if kind == _UNMATCHED else -1)
                rows.append(at)
            position += length
            if kind == _UNMATCHED:
                raw += length
        at = after
    if kind not in _IMAGE_INFO:
        raise FormatError("the entries do not end with the image's own", source=source, offset=offset)
    if any(image.length != position for image in images):
        raise FormatError(
            f"the entries cover {position} bytes, the image is said to have {images[-1].length}",
            source=source,
            offset=offset,
        )
    if raw > raw_there:
        raise FormatError(
            f"{raw} bytes of the image are said to be in the template, which holds {raw_there}",
            source=source,
            offset=offset,
        )
    starts.append(position)
    return Columns(starts, raw_offsets, rows, raw, desc), tuple(images)
