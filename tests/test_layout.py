"""The layout against a naive model that keeps one row per byte."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.format.template import Entry, ImageInfo, MatchedFile, UnmatchedData
from jigdofs.image.layout import Layout, Slice

SUMS = [Checksum.of(algorithm, b"%d" % number) for number in range(3) for algorithm in Algorithm]
LENGTHS = st.integers(0, 12)
UNMATCHED = LENGTHS.map(UnmatchedData)
FILES = st.builds(MatchedFile, LENGTHS, st.sampled_from(SUMS))
ENTRIES = st.lists(UNMATCHED | FILES | st.just(ImageInfo(5, SUMS[0])), max_size=12)

Row = tuple[Part | None, int]


def model(entries: Iterable[Entry]) -> list[Row]:
    """Return, for each byte of the image, where it comes from."""
    rows: list[Row] = []
    raw = 0
    for entry in entries:
        if isinstance(entry, UnmatchedData):
            rows += [(None, raw + at) for at in range(entry.length)]
            raw += entry.length
        elif isinstance(entry, MatchedFile):
            rows += [(Part(entry.checksum, entry.length), at) for at in range(entry.length)]
    return rows


def rows_of(slices: Iterable[Slice]) -> list[Row]:
    return [(part, offset + at) for part, offset, length in slices for at in range(length)]


@settings(max_examples=300)
@given(ENTRIES, st.integers(0, 150), st.integers(0, 150))
def test_slices_are_the_read(entries: list[Entry], offset: int, size: int) -> None:
    """The slices of a read are, byte by byte, what the model has there; none is empty, no two are one."""
    rows = model(entries)
    slices = list(Layout(entries).slices(offset, size))
    assert rows_of(slices) == rows[offset : offset + size]
    assert all(length > 0 for _, _, length in slices)
    assert all(part is None or offset + length <= part.length for part, offset, length in slices)


@given(ENTRIES)
def test_prefix_sums(entries: list[Entry]) -> None:
    """Starts, lengths and parts of all extents agree with the entries."""
    layout = Layout(entries)
    rows = model(entries)
    extents = [entry for entry in entries if not isinstance(entry, ImageInfo) and entry.length]
    assert (len(layout), layout.length) == (len(extents), len(rows))
    assert layout.raw_length == sum(entry.length for entry in extents if isinstance(entry, UnmatchedData))
    assert layout.start(len(layout)) == layout.length
    for index, entry in enumerate(extents):
        part = layout.part(index)
        assert layout.start(index + 1) - layout.start(index) == entry.length
        assert part == (Part(entry.checksum, entry.length) if isinstance(entry, MatchedFile) else None)
        assert layout.index_at(layout.start(index)) == index
        assert layout.index_at(layout.start(index + 1) - 1) == index
    parts = [(at, part) for at, (part, within) in enumerate(rows) if part is not None and within == 0]
    assert list(layout.parts()) == parts


@given(ENTRIES)
def test_distinct_parts(entries: list[Entry]) -> None:
    """Each part comes once, in the order of first occurrence."""
    first = {
        entry.checksum: entry
        for entry in reversed(entries)
        if isinstance(entry, MatchedFile) and entry.length
    }
    distinct = Layout(entries).distinct_parts()
    assert {checksum: part.length for checksum, part in distinct.items()} == {
        checksum: entry.length for checksum, entry in first.items()
    }
    order = [entry.checksum for entry in entries if isinstance(entry, MatchedFile) and entry.length]
    assert list(distinct) == list(dict.fromkeys(order))


@pytest.mark.parametrize(("offset", "size"), [(0, 0), (7, 0), (10, 1), (11, 5), (2**60, 2**60), (-1, 5)])
def test_reads_of_nothing(offset: int, size: int) -> None:
    """A read of no bytes, at the end, beyond it or before the image has no slice."""
    assert list(Layout([UnmatchedData(4), MatchedFile(6, SUMS[0])]).slices(offset, size)) == []


def test_an_image_of_many_terabytes() -> None:
    """Offsets beyond 32 bits and images near 2**48 are exact."""
    big = 2**47
    layout = Layout([UnmatchedData(1), MatchedFile(big, SUMS[0]), UnmatchedData(2), MatchedFile(7, SUMS[1])])
    assert list(layout.slices(big, 10**18)) == [
        Slice(Part(SUMS[0], big), big - 1, 1),
        Slice(None, 1, 2),
        Slice(Part(SUMS[1], 7), 0, 7),
    ]


def test_a_part_that_occurs_with_two_lengths() -> None:
    """A template that lies about one length does not change the other occurrence."""
    layout = Layout([MatchedFile(3, SUMS[0]), MatchedFile(5, SUMS[0])])
    assert [part.length for _, part in layout.parts()] == [3, 5]
