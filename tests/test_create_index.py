"""The index against a dictionary: which files may begin at a window, and which windows tell a run."""

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.create.index import Hits, Index
from jigdofs.create.runs import Run, find_run
from jigdofs.create.windows import GRID, Bytes, Hashes, grid_hashes, reach

WINDOW = 192
REACH = reach(WINDOW)


def rows(heads: list[bytes]) -> Bytes:
    return np.frombuffer(b"".join(heads), np.uint8).reshape(len(heads), -1)


def hash_of(window: bytes) -> int:
    return int(grid_hashes(np.frombuffer(window, np.uint8), len(window))[0])


def index_of(heads: list[bytes], at_once: int = 3) -> Index:
    index = Index(WINDOW)
    for first in range(0, len(heads), at_once):
        some = heads[first : first + at_once]
        index.add(rows(some), list(range(first, first + len(some))))
    index.seal()
    return index


def pairs(hits: Hits) -> list[tuple[int, int]]:
    return list(zip(hits.windows.tolist(), hits.owners.tolist(), strict=True))


def look_up(index: Index, windows: list[bytes]) -> list[tuple[int, int]]:
    return pairs(index.find(np.array([hash_of(window) for window in windows], np.uint64)))


def windows_of(head: bytes) -> list[bytes]:
    return [head[offset : offset + WINDOW] for offset in range(GRID)]


def naive(heads: list[bytes]) -> dict[bytes, set[int]]:
    """Return who owns each window; patterns and groups are counted as they first come."""
    owners: defaultdict[bytes, set[int]] = defaultdict(set)
    groups = list(dict.fromkeys(heads))
    patterns: list[bytes] = []
    for group, head in enumerate(groups):
        run = find_run(head, WINDOW)
        lead = head[run.start : run.start + run.period] if run else b""
        turns = {lead[turn:] + lead[:turn] for turn in range(len(lead))}
        if run and not turns & set(patterns):
            patterns.append(lead)
        for offset, window in enumerate(windows_of(head)):
            if run and run.start <= offset and offset + WINDOW <= run.end:
                pattern = next(number for number, one in enumerate(patterns) if one in turns)
                owners[window].add(-1 - pattern)
            else:
                owners[window].add(group * GRID + offset)
    return owners


@st.composite
def beginnings(draw: st.DrawFn) -> list[bytes]:
    """Make beginnings of files: equal ones, shifted ones, and ones that repeat short patterns."""
    source = random.Random(draw(st.integers(0, 1 << 32)))
    noise = source.randbytes(2 * REACH)
    shifted = st.integers(0, REACH).map(lambda at: noise[at : at + REACH])
    patterns = st.sampled_from([b"\x00", b"\xff", b"ab", b"ba", b"abc", noise[:63], noise[:64], noise[:65]])
    repeating = st.builds(
        lambda before, pattern: (noise[:before] + pattern * REACH)[:REACH], st.integers(0, 70), patterns
    )
    fresh = st.builds(lambda: source.randbytes(REACH))
    return draw(st.lists(shifted | repeating | fresh, max_size=12))


@settings(max_examples=80, deadline=None)
@given(beginnings())
def test_as_a_dictionary(heads: list[bytes]) -> None:
    """Every window of every beginning, and some that are in none, find exactly the owners they have."""
    index = index_of(heads)
    owners = naive(heads)
    others = [random.Random(seed).randbytes(WINDOW) for seed in range(200)]
    windows = [window for head in heads for window in windows_of(head)] + others
    expected = [
        (number, owner) for number, window in enumerate(windows) for owner in sorted(owners.get(window, ()))
    ]
    assert look_up(index, windows) == expected


@settings(max_examples=100, deadline=None)
@given(beginnings(), st.integers(1, 5))
def test_groups(heads: list[bytes], at_once: int) -> None:
    """Files that begin alike are one group, in the order in which they came, however they came."""
    index = index_of(heads, at_once)
    alike = [[number for number, other in enumerate(heads) if other == head] for head in dict.fromkeys(heads)]
    assert index.groups == alike
    expected = [(file, run) for file, head in enumerate(heads) if (run := find_run(head, WINDOW))]
    assert [(one.file, one.run) for one in sorted(index.running)] == expected


@pytest.mark.parametrize("places", [(7, 15), (0, 8), (56, 57), (3, 60)])
def test_beginnings_that_differ_little(places: tuple[int, int]) -> None:
    """Beginnings that differ in two bytes, such as counters in a header, are never taken for alike."""
    common = bytearray(random.Random(1).randbytes(REACH))
    heads = []
    for one in range(0, 256, 5):
        for two in range(0, 256, 5):
            common[places[0]], common[places[1]] = one, two
            heads.append(bytes(common))
    index = index_of(heads, at_once=512)
    assert index.groups == [[number] for number in range(len(heads))]
    found = look_up(index, [head[1 : 1 + WINDOW] for head in heads])
    assert {(number, number * GRID + 1) for number in range(len(heads))} <= set(found)


def test_windows_of_a_run_are_kept_once() -> None:
    """However many files have zeros, a window of zeros has one owner; the windows at borders tell files."""
    noise = [random.Random(seed).randbytes(REACH) for seed in range(50)]
    heads = [(one[:40] + bytes(REACH))[:REACH] for one in noise]
    index = index_of(heads)
    assert index.patterns == [b"\x00"]
    assert look_up(index, [bytes(WINDOW)]) == [(0, -1)]
    assert look_up(index, [heads[3][39 : 39 + WINDOW]]) == [(0, 3 * GRID + 39)]
    assert [one.run for one in index.running] == [Run(40, REACH, 1)] * 50


def test_one_pattern_wherever_it_begins() -> None:
    """Files whose runs begin elsewhere in the same pattern share it."""
    heads = [(b"abcabc" * REACH)[turn : turn + REACH] for turn in range(3)]
    index = index_of(heads)
    assert index.patterns == [b"abc"]
    assert {one.pattern for one in index.running} == {0}
    assert look_up(index, [(b"cab" * WINDOW)[:WINDOW]]) == [(0, -1)]


@pytest.mark.parametrize("sizes", [[], [0]])
def test_without_files(sizes: list[int]) -> None:
    """An index of no file at all finds nothing, among zeros either."""
    index = Index(WINDOW)
    for _ in sizes:
        index.add(np.empty((0, REACH), np.uint8), [])
    index.seal()
    assert (index.groups, index.running) == ([], [])
    hashes: Hashes = np.arange(1000, dtype=np.uint64)
    assert pairs(index.find(hashes)) == []
    assert look_up(index, [bytes(WINDOW)]) == []


def test_thousands_of_files() -> None:
    """Each of 5000 files is found by any of its windows, and by no other's."""
    source = random.Random(5)
    heads = [source.randbytes(REACH) for _ in range(5000)]
    index = index_of(heads, at_once=512)
    offsets = [source.randrange(GRID) for _ in heads]
    found = look_up(index, [head[at : at + WINDOW] for head, at in zip(heads, offsets, strict=True)])
    assert found == [(number, number * GRID + at) for number, at in enumerate(offsets)]
