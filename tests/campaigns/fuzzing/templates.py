"""Templates: reading, layout, inflating, and what the writer wrote."""

import bz2
import io
import os
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from jigdofs.errors import FormatError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.format.template import (
    CHUNK_HEADER_SIZE,
    DESC_OVERHEAD,
    Chunk,
    Compression,
    Entry,
    ImageInfo,
    MatchedFile,
    Template,
    UnmatchedData,
    read_entries,
)
from jigdofs.format.template_reader import has_header, read_desc, read_template
from jigdofs.format.template_writer import TemplateWriter, pack_chunk, pack_entry
from jigdofs.image.layout import Layout
from jigdofs.image.opener import OpenFile
from jigdofs.image.raw_data import RawData, TemplateFile, inflate
from tests.campaigns.fuzzing.choices import Choices
from tests.campaigns.fuzzing.promises import one_line

_MAX_PIECE = 1 << 20
_LENGTHS = (0, 1, 2, 3, 100, 511, 2048, 65_536, 1 << 32, (1 << 48) - 1)


def template(data: bytes) -> None:
    """Any bytes are a template that says one thing, or an error that names the place."""
    file = io.BytesIO(data)
    try:
        read = read_template(file, "x")
    except FormatError as error:
        one_line(error)
        return
    assert has_header(file)
    _check(read, data, Choices(data[-64:]))


def _check(read: Template, data: bytes, choices: Choices) -> None:
    """Hold everything that a template says against everything else it says."""
    end = 0
    for chunk in read.chunks:
        assert end < chunk.offset <= chunk.offset + chunk.size <= len(data)
        assert chunk.length > 0
        end = chunk.offset + chunk.size
    _, desc = read_desc(io.BytesIO(data), "x")
    assert desc == read.desc
    entries = list(read.entries())
    assert list(read_entries(b"".join(map(pack_entry, entries)), source="x")) == entries
    model = Layout(entries)
    layout = Layout.of(read.columns)
    assert layout.length == model.length == read.image_length
    assert layout.raw_length == model.raw_length <= sum(chunk.length for chunk in read.chunks)
    assert len(layout) == len(model)
    _check_layout(layout, entries, choices)
    _check_layout(model, entries, choices)


def _check_layout(layout: Layout, entries: Sequence[Entry], choices: Choices) -> None:
    """Ask for some ranges, and compare with what a plain walk over the entries finds."""
    assert list(layout.parts()) == _parts(entries)
    assert len(layout.distinct_parts()) == len({part.checksum for _, part in layout.parts()})
    for _ in range(4):
        offset = choices.number(1 << 16) if choices.flag() else choices.number(max(1, layout.length + 2))
        size = choices.number(1 << 17)
        slices = [(one.part, one.offset, one.length) for one in layout.slices(offset, size)]
        assert slices == _walked(entries, offset, offset + size)
        assert all(length > 0 for _, _, length in slices)
        assert sum(length for _, _, length in slices) == max(0, min(size, layout.length - offset))
        if slices:
            index = layout.index_at(offset)
            assert layout.start(index) <= offset < layout.start(index + 1)
            assert layout.part(index) == slices[0][0]
    assert not list(layout.slices(-1, 10))


def _parts(entries: Sequence[Entry]) -> list[tuple[int, Part]]:
    at = 0
    found = []
    for entry in entries:
        if isinstance(entry, MatchedFile) and entry.length:
            found.append((at, Part(entry.checksum, entry.length)))
        at += 0 if isinstance(entry, ImageInfo) else entry.length
    return found


def _walked(entries: Sequence[Entry], begin: int, end: int) -> list[tuple[Part | None, int, int]]:
    """Return the slices of a range, entry by entry from the first on."""
    at = raw = 0
    found: list[tuple[Part | None, int, int]] = []
    for entry in entries:
        if isinstance(entry, ImageInfo):
            continue
        low, high = max(begin, at), min(end, at + entry.length)
        if low < high and isinstance(entry, MatchedFile):
            found.append((Part(entry.checksum, entry.length), low - at, high - low))
        elif low < high:
            found.append((None, raw + low - at, high - low))
        at += entry.length
        raw += entry.length if isinstance(entry, UnmatchedData) else 0
    return found


def _entries(choices: Choices, algorithm: Algorithm) -> list[Entry]:
    found: list[Entry] = []
    total = 0
    for _ in range(choices.number(12)):
        length = choices.of(_LENGTHS[:8]) if choices.number(4) else choices.number(1 << 20)
        if choices.flag():
            entry: Entry = UnmatchedData(min(length, 1500))
        else:
            rsync64 = None if algorithm is Algorithm.MD5 and choices.flag() else choices.take(8).ljust(8)
            checksum = Checksum.of(algorithm, choices.take(1))
            entry = MatchedFile(length, checksum, rsync64, choices.number(8) == 7)
        found.append(entry)
        total += entry.length
    return [*found, ImageInfo(total, Checksum.of(algorithm, b"image"), choices.number(1 << 12))]


def written(data: bytes) -> None:
    """What the writer wrote is read back; with bytes of it changed it is read, or refused, in good order."""
    choices = Choices(data)
    algorithm = choices.of(tuple(Algorithm))
    entries = _entries(choices, algorithm)
    length = sum(entry.length for entry in entries if isinstance(entry, UnmatchedData))
    seed = choices.take(32) or b"\0"
    raw = (seed * (length // len(seed) + 1))[:length]
    out = io.BytesIO()
    compression = choices.of(tuple(Compression))
    writer = TemplateWriter(out, algorithm, creator="f", compression=compression, level=choices.number(3))
    cut = choices.number(length + 1)
    writer.raw_data(raw[:cut])
    writer.raw_data(raw[cut:])
    writer.finish(entries)
    file = bytearray(out.getvalue())
    read = read_template(io.BytesIO(file), "x")
    assert list(read.entries()) == entries
    _check(read, bytes(file), choices)
    assert b"".join(map(_inflated_naively, read.chunks, [bytes(file)] * len(read.chunks))) == raw
    if choices:
        template(_spoilt(file, choices))


def _spoilt(file: bytearray, choices: Choices) -> bytes:
    """Change some bytes, or entries in one piece, with the lengths around them put right again."""
    length = int.from_bytes(file[-6:], "little")
    at = len(file) - length
    desc = bytearray(file[at + 10 : -6])
    for _ in range(choices.number(6)):
        where = choices.number(len(desc) + 1)
        kind = choices.number(6)
        if kind == 0:
            desc[where : where + 1] = choices.take(1)
        elif kind == 1:
            desc[where:where] = choices.block(64)
        elif kind == 2:
            del desc[where : where + choices.number(40)]
        elif kind == 3:
            desc[where : where + 7] = bytes([choices.number(12)]) + choices.of(_LENGTHS).to_bytes(6, "little")
        elif kind == 4:
            position = choices.number(at + 1)
            file[position : position + 6] = choices.of(_LENGTHS).to_bytes(6, "little")
        else:
            file[choices.number(at + 1)] = choices.number(256)
    total = (len(desc) + DESC_OVERHEAD).to_bytes(6, "little")
    if choices.number(8) == 7:
        return bytes(file[:at] + b"DESC" + total + desc + choices.take(6))
    return bytes(file[:at] + b"DESC" + total + desc + total)


def layout(data: bytes) -> None:
    """Any entries in any order: slices are contiguous, in order, not empty, and exactly the read."""
    choices = Choices(data)
    entries: list[Entry] = []
    while choices and len(entries) < 40:
        kind = choices.number(3)
        length = choices.of(_LENGTHS)
        if kind == 0:
            entries.append(UnmatchedData(length))
        elif kind == 1:
            algorithm = choices.of(tuple(Algorithm))
            entries.append(MatchedFile(length, Checksum.of(algorithm, choices.take(1)), bytes(8)))
        else:
            entries.append(ImageInfo(length, Checksum.of(Algorithm.MD5, b"i")))
    _check_layout(Layout(entries), entries, Choices(data[::-1]))


def _inflated_naively(chunk: Chunk, file: bytes) -> bytes:
    packed = file[chunk.offset : chunk.offset + chunk.size]
    if chunk.compression is Compression.ZLIB:
        return zlib.decompressobj().decompress(packed)
    return bz2.BZ2Decompressor().decompress(packed)


class _Nowhere:
    """A store that has nothing: only where chunks lie is asked here."""

    def peek(self, key: str, length: int) -> OpenFile | None:
        return None

    async def open_made(self, key: str, length: int, make: object) -> OpenFile:
        raise AssertionError(key)

    def hint_made(self, key: str, length: int, make: object) -> None:
        raise AssertionError(key)


def chunk(data: bytes) -> None:
    """A chunk inflates to exactly what it announces, in bounded pieces, or is refused."""
    choices = Choices(data)
    compression = choices.of(tuple(Compression))
    text = (choices.block(200) or b"x") * choices.of(
        (1, 1, 2, 40, 20_000 if compression is Compression.ZLIB else 80)
    )
    packed = bytearray(pack_chunk(text, compression, choices.number(4))[CHUNK_HEADER_SIZE:])
    for _ in range(choices.number(4)):
        at = choices.number(len(packed) + 1)
        packed[at : at + choices.number(3)] = choices.block(4)
    claimed = choices.of((len(text), len(text), len(text) + 1, max(1, len(text) - 1), 1, 1 << 40))
    before = choices.number(100)
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, bytes(before) + packed + choices.rest())
        one = Chunk(compression, before, len(packed), claimed)
        produced = 0
        whole = b""
        try:
            for piece in inflate(TemplateFile(fd, "x", "0", (0, 0)), one):
                assert 0 < len(piece) <= _MAX_PIECE
                produced += len(piece)
                assert produced <= claimed
                whole += piece
        except FormatError as error:
            one_line(error)
        else:
            assert produced == claimed
            assert whole == _inflated_naively(one, bytes(before) + packed)
    finally:
        os.close(fd)


def raw_slices(data: bytes) -> None:
    """A range of the raw data lies in the chunks that a sum over their lengths says."""
    choices = Choices(data)
    lengths = [1 + choices.of(_LENGTHS) for _ in range(1 + choices.number(10))]
    chunks = tuple(Chunk(Compression.ZLIB, 0, 0, length) for length in lengths)
    raw = RawData(TemplateFile(0, "x", "0", (0, 0)), chunks, _Nowhere())
    starts = [0, *accumulate(lengths)]
    for _ in range(4):
        offset = choices.number(starts[-1])
        length = choices.number(starts[-1] - offset + 1) if choices.flag() else min(9, starts[-1] - offset)
        at = offset
        for number, within, taken in raw.slices(offset, length):
            assert number == bisect_right(starts, at) - 1
            assert within == at - starts[number]
            assert 0 < taken <= lengths[number] - within
            at += taken
        assert at == offset + length
