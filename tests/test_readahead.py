"""Readahead: lazy before a reader has shown a direction, never twice the same, gone with a jump."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.template import Entry, MatchedFile, UnmatchedData
from jigdofs.image.layout import Layout
from jigdofs.image.readahead import FIRST_BYTES, SLACK_BYTES, Readahead

SUM = Checksum.of(Algorithm.MD5, b"")
READ = 128 << 10
MIB = 1 << 20


def layout(part: int, count: int = 2000, gap: int = 1024) -> Layout:
    """Return an image of equal parts, each followed by its padding."""
    entries: list[Entry] = [MatchedFile(part, SUM), UnmatchedData(gap)]
    return Layout(entries * count)


def sequential(readahead: Readahead, begin: int, end: int, size: int = READ) -> list[tuple[int, int, int]]:
    """Read through and return (where the reader is, begin, end) of every range that is hinted."""
    hints = []
    for offset in range(begin, end, size):
        first, last = readahead.advance(offset, size)
        if first < last:
            hints.append((offset + size, first, last))
    return hints


def behind(image: Layout, at: int) -> int:
    """Return where the extent ends whose bytes were read up to `at`."""
    return image.start(image.index_at(at - 1) + 1)


@pytest.mark.parametrize("part", [2000, 80_000, 300_000, 3_000_000])
@pytest.mark.parametrize("begin", [0, 60_000_000])
def test_nothing_before_three_parts(part: int, begin: int) -> None:
    """A reader who went through three parts and their padding is followed, no earlier."""
    pitch = part + 1024
    begin = -(-begin // pitch) * pitch
    image = layout(part, 100_000_000 // pitch)
    hints = sequential(Readahead(image, 32 * MIB), begin, begin + 5 * pitch + READ, 1000)
    assert hints
    assert hints[0][0] - begin >= 3 * pitch
    assert hints[0][0] - begin < 3 * pitch + 2000


def test_one_part_read_through() -> None:
    """Somebody who reads one part, however large, has nothing fetched for him."""
    assert sequential(Readahead(layout(50_000_000, 3), 32 * MIB), 0, 50_000_000) == []


@pytest.mark.parametrize("offset", [100_000, 700_000, SLACK_BYTES, SLACK_BYTES + 1, 50 * MIB])
def test_the_first_read(offset: int) -> None:
    """A first read anywhere shows no direction: the bytes before it were not gone through."""
    first, last = Readahead(layout(5000, 100_000), 32 * MIB).advance(offset, 4096)
    assert first >= last


@settings(max_examples=60, deadline=None)
@given(
    st.integers(5_000, 400_000),
    st.integers(32 << 10, 3 * MIB),
    st.sampled_from([FIRST_BYTES // 4, MIB, 3 * MIB, 32 * MIB]),
)
def test_a_sequential_run(part: int, size: int, most: int) -> None:
    """Hints follow on each other without an overlap, lie ahead, and stay within the window."""
    image = layout(part, 20_000_000 // part)
    hints = sequential(Readahead(image, most), 0, image.length, size)
    for (_, _, end), (_, begin, _) in itertools.pairwise(hints):
        assert begin >= end
    assert all(at <= begin < end <= min(behind(image, at) + most, image.length) for at, begin, end in hints)


@pytest.mark.parametrize("part", [1024, 10_000, 80_000, 2_000_000])
@pytest.mark.parametrize("most", [MIB, 32 * MIB])
def test_a_run_is_hinted_to_its_end(part: int, most: int) -> None:
    """With small reads the ranges follow on each other until the image's last byte."""
    image = layout(part, 80 * MIB // (part + 1024))
    hints = sequential(Readahead(image, most), 0, image.length, 32 << 10)
    assert [end for _, _, end in hints[:-1]] == [begin for _, begin, _ in hints[1:]]
    assert hints[-1][2] == image.length


def test_the_window_doubles() -> None:
    """How far is looked ahead doubles from FIRST_BYTES up to the limit and stays there."""
    image = layout(80_000)
    hints = sequential(Readahead(image, 8 * MIB), 0, 60 * MIB)
    ahead = [end - behind(image, at) for at, _, end in hints]
    assert ahead[:4] == [FIRST_BYTES, 2 * FIRST_BYTES, 4 * FIRST_BYTES, 8 * FIRST_BYTES]
    assert set(ahead[4:]) == {8 * MIB}


@pytest.mark.parametrize("most", [4096, 128 << 10, 200 << 10, 256 << 10, MIB, 3 * MIB])
def test_small_limits(most: int) -> None:
    """A limit below the first window is a small readahead, not none, and it is kept."""
    image = layout(80_000)
    hints = sequential(Readahead(image, most), 0, 20 * MIB, 4096)
    assert hints
    assert max(end - behind(image, at) for at, _, end in hints) == most


def test_behind_a_large_part() -> None:
    """While a part larger than the window comes in, what lies behind it comes in, too."""
    some: list[Entry] = [MatchedFile(80_000, SUM)] * 100
    image = Layout([*some, MatchedFile(100_000_000, SUM), *some])
    begin, end = image.start(100), image.start(101)
    hints = sequential(Readahead(image, 4 * MIB), 0, begin + READ)
    assert max(last for _, _, last in hints) == end + 4 * MIB


def test_off() -> None:
    """A limit of 0 means never."""
    image = layout(80_000)
    assert sequential(Readahead(image, 0), 0, image.length) == []


@pytest.mark.parametrize("target", [90 * MIB, 10 * MIB, 0])
def test_a_jump(target: int) -> None:
    """After a jump, forward or back, three parts must be gone through anew, and the window is small again."""
    image = layout(80_000)
    readahead = Readahead(image, 32 * MIB)
    assert sequential(readahead, 40 * MIB, 60 * MIB)
    hints = sequential(readahead, target, target + 5 * MIB, 4096)
    assert hints[0][0] - target >= 80_000 + 2 * 1024
    assert hints[0][2] - behind(image, hints[0][0]) == FIRST_BYTES


def test_out_of_order() -> None:
    """Reads that arrive in another order within the slack are one run; nothing is hinted twice."""
    image = layout(80_000)
    readahead = Readahead(image, 8 * MIB)
    hints = []
    for group in range(0, 40 * MIB, 4 * READ):
        for step in (2, 0, 3, 1):
            first, last = readahead.advance(group + step * READ, READ)
            if first < last:
                hints.append((first, last))
    assert len(hints) > 5
    assert [end for _, end in hints[:-1]] == [begin for begin, _ in hints[1:]]


def test_reading_again() -> None:
    """Bytes that were read before, within the slack, neither hint nor end the run."""
    image = layout(80_000)
    readahead = Readahead(image, 8 * MIB)
    hints = sequential(readahead, 0, 10 * MIB)
    assert sequential(readahead, 10 * MIB - SLACK_BYTES // 2, 10 * MIB) == []
    assert sequential(readahead, 10 * MIB, 20 * MIB)[0][1] == hints[-1][2]


def test_at_the_end() -> None:
    """The end of the image, and reads beyond it, give no range beyond it."""
    image = layout(80_000, 20)
    readahead = Readahead(image, 8 * MIB)
    assert {
        end for _, _, end in sequential(readahead, 0, image.length + 3 * READ) if end > image.length
    } == set()
    assert Readahead(Layout([]), MIB).advance(0, READ) == (0, 0)
