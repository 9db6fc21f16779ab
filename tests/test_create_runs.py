"""Runs against a naive reference: where a short pattern repeats, and up to where."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.create.runs import MAX_PERIOD, Read, Run, find_run, pattern_of, run_end, run_start
from jigdofs.create.windows import reach, window_length

SOURCES = st.integers(0, 1 << 32).map(random.Random)
PIECES = (4 << 10, 1 << 20)


def cyclic(pattern: bytes, length: int, turn: int = 0) -> bytes:
    """Repeat a pattern, from a place in it on."""
    return (pattern * ((turn + length) // len(pattern) + 1))[turn : turn + length]


def shortest(data: bytes) -> int | None:
    """Return the shortest period of bytes that repeat throughout, if it is short enough for a run."""
    return next((one for one in range(1, MAX_PERIOD + 1) if data[one:] == data[:-one]), None)


def all_runs(data: bytes, at_least: int) -> list[Run]:
    """Return each run that cannot be extended, by trying every byte."""
    found = []
    for period in range(1, MAX_PERIOD + 1):
        start = 0
        for at in range(period, len(data) + 1):
            if at == len(data) or data[at] != data[at - period]:
                if at - start >= at_least and shortest(data[start:at]) == period:
                    found.append(Run(start, at, period))
                start = at - period + 1
    return found


def reading(data: bytes) -> Read:
    """Read within the data and nowhere else, one byte at least."""

    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset < offset + length <= len(data)
        return data[offset : offset + length]

    return read


@st.composite
def heads(draw: st.DrawFn) -> tuple[bytes, int]:
    """Make the beginning of a file, with a stretch that repeats something, and a window's length."""
    source = draw(SOURCES)
    window = window_length(draw(st.sampled_from([256, 319, 512, 1024])))
    pattern = source.randbytes(draw(st.integers(1, 70) | st.sampled_from([63, 64, 126])))
    length = draw(st.integers(window - 70, reach(window)))
    before = draw(st.integers(0, 80))
    head = source.randbytes(before) + cyclic(pattern, length) + source.randbytes(reach(window))
    return head[: reach(window)], window


@settings(max_examples=150, deadline=None)
@given(heads())
def test_find_run(made: tuple[bytes, int]) -> None:
    """The run of a beginning is the only one there is, with its shortest period; longer periods make none."""
    head, window = made
    expected = all_runs(head, window)
    assert len(expected) <= 1
    assert find_run(head, window) == (expected[0] if expected else None)


@pytest.mark.parametrize("period", [1, 2, 62, 63, 64, 65])
def test_find_run_periods(period: int) -> None:
    """A pattern of up to 63 bytes makes a run, one of 64 does not."""
    head = b"\x01" * 5 + cyclic(bytes(range(255, 255 - period, -1)), 1000)
    run = find_run(head, 960)
    assert run == (Run(5, 1005, period) if period <= MAX_PERIOD else None)


@given(st.binary(min_size=1, max_size=MAX_PERIOD), st.integers(0, MAX_PERIOD), st.integers(0, 300))
def test_pattern_of(pattern: bytes, turn: int, start: int) -> None:
    """Wherever in the pattern a run begins, and wherever in the file, the pattern is the same."""
    period = shortest(pattern * 3)
    assert period is not None
    run = Run(start, start + 300, period)
    turned = pattern_of(bytes(start) + cyclic(pattern, 300, turn % period), run)
    assert turned == min(cyclic(pattern, period, by) for by in range(period))


@settings(max_examples=150, deadline=None)
@given(
    before=st.integers(0, 100) | st.sampled_from(PIECES).flatmap(lambda one: st.integers(one - 70, one + 70)),
    behind=st.integers(0, 100) | st.sampled_from(PIECES).flatmap(lambda one: st.integers(one - 70, one + 70)),
    pattern=st.binary(min_size=1, max_size=MAX_PERIOD),
    edges=st.tuples(st.booleans(), st.booleans()),
)
def test_borders(before: int, behind: int, pattern: bytes, edges: tuple[bool, bool]) -> None:
    """From any place in a run both its ends are found, at the borders of what is read at once too."""
    period = shortest(pattern * 3)
    assert period is not None
    inside = cyclic(pattern, before + period + behind)
    # a byte that breaks the pattern, or nothing at all, on either side
    first = bytes([inside[period - 1] ^ 1]) * 9 if edges[0] else b""
    last = bytes([inside[-period] ^ 1]) * 9 if edges[1] else b""
    data = first + inside + last
    at = len(first) + before
    assert run_start(reading(data), at, period) == len(first)
    assert run_end(reading(data), at, period, len(data)) == len(first) + len(inside)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.integers(1, 8), st.integers(0, 40), st.sampled_from([b"ab", b"a", b"abc"]))
def test_borders_of_anything(data: bytes, period: int, at: int, letters: bytes) -> None:
    """In data of few letters, where runs overlap, both ends are what stepping byte by byte gives."""
    data = bytes(letters[byte % len(letters)] for byte in data) + letters * 8
    at = min(at, len(data) - period)
    start, end = at, at + period
    while start and data[start - 1] == data[start - 1 + period]:
        start -= 1
    while end < len(data) and data[end] == data[end - period]:
        end += 1
    assert run_start(reading(data), at, period) == start
    assert run_end(reading(data), at, period, len(data)) == end


def test_long_run_is_read_in_large_pieces() -> None:
    """A run of 20 MB takes some 30 readings, not thousands."""
    data = random.Random(1).randbytes(9) + bytes(20_000_000) + b"x"
    sizes = []

    def read(offset: int, length: int) -> bytes:
        sizes.append(length)
        return data[offset : offset + length]

    assert run_end(read, 9, 1, len(data)) == len(data) - 1
    assert run_start(read, len(data) - 2, 1) == 9
    assert len(sizes) < 64
    assert max(sizes) <= (1 << 20) + 1
