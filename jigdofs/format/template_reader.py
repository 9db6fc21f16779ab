"""Read .template files: everything but the chunks' contents (format.md 1).

Rules of this file:
* It only seeks and reads what it must: chunk headers and the DESC part, never a chunk.
* Numbers from the file are believed only after they were held against the file's size.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from jigdofs.errors import FormatError
from jigdofs.format.template import (
    CHUNK_HEADER_SIZE,
    DESC_HEADER_SIZE,
    DESC_OVERHEAD,
    ENTRY_SIZES,
    HEADER_PREFIX,
    IMAGE_INFO,
    MAX_CHUNKS,
    MAX_DESC_BYTES,
    MAX_ENTRIES,
    MAX_IMAGE_INFOS,
    MAX_PARTS,
    Chunk,
    Columns,
    Compression,
    EntryType,
    ImageInfo,
    Template,
    no_entry,
    read_entries,
    read_u48,
    too_many,
)

_COMPRESSIONS = {compression.value: compression for compression in Compression}
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
    chunks = tuple(_read_chunks(file, start, offset - DESC_HEADER_SIZE, source))
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
    return offset + DESC_HEADER_SIZE, desc[DESC_HEADER_SIZE:-6]


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
    if at != end:
        raise too_many("chunks", MAX_CHUNKS, source, at)


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
    for _ in range(MAX_ENTRIES):  # 120,000 entries take 0.2 us each here, 0.5 us by way of `read_entries`
        if at >= end:
            break
        kind = desc[at]
        after = at + ENTRY_SIZES[kind]
        if after == at or after > end:
            raise no_entry(kind, source, offset + at)
        length = int.from_bytes(desc[at + 1 : at + 7], "little")
        if kind in IMAGE_INFO:
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
    if at < end:
        raise too_many("entries", MAX_ENTRIES, source, offset + at)
    if kind not in IMAGE_INFO:
        raise FormatError("the entries do not end with the image's own", source=source, offset=offset)
    columns = Columns(starts, raw_offsets, rows, raw, desc)
    _check_sums(columns, images, position, raw_there, _Place(source, offset))
    starts.append(position)
    return columns, tuple(images)


class _Place(NamedTuple):
    """Where the entries are, for messages."""

    source: str
    offset: int


def _check_sums(
    columns: Columns, images: list[ImageInfo], position: int, raw_there: int, place: _Place
) -> None:
    """Hold what the entries add up to against the image's own entries and against the chunks."""
    if columns.raw_offsets.count(-1) > MAX_PARTS:
        raise too_many("parts", MAX_PARTS, *place)
    if any(image.length != position for image in images):
        raise FormatError(
            f"the entries cover {position} bytes, the image is said to have {images[-1].length}",
            **place._asdict(),
        )
    if columns.raw_length > raw_there:
        raise FormatError(
            f"{columns.raw_length} bytes of the image are said to be in the template, which holds"
            f" {raw_there}",
            **place._asdict(),
        )
