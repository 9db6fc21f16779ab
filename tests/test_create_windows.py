"""Hashes of windows: what the hash is, and that a file is found at whatever offset it lies."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigdofs.create.windows import GRID, Bytes, grid_hashes, head_hashes, reach, window_length

MODULUS = 1 << 64
STEP = 0x9E3779B97F4A7C15
SOURCES = st.integers(0, 1 << 32).map(random.Random)
WINDOWS = st.integers(3, 15).map(lambda count: count * GRID)


def array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def hash_of(window: bytes) -> int:
    """Sum the words: each has a weight for its place in its block, and a power for the block."""
    total = 0
    for at in range(0, len(window), 8):
        block, word = divmod(at // 8, GRID // 8)
        weight = pow(STEP, 3 * word + 1, MODULUS) ^ (word << 8)
        total += int.from_bytes(window[at : at + 8], "little") * weight * pow(STEP, block, MODULUS)
    return total % MODULUS


@settings(max_examples=60, deadline=None)
@given(WINDOWS, st.integers(0, 500), SOURCES)
def test_grid_hashes(window: int, more: int, source: random.Random) -> None:
    """Every whole window at a multiple of GRID has the hash of the plain definition, and no other has one."""
    data = source.randbytes(window + more)
    expected = [hash_of(data[at : at + window]) for at in range(0, len(data) - window + 1, GRID)]
    assert grid_hashes(array(data), window).tolist() == expected


@pytest.mark.parametrize("fill", [0x00, 0xFF])
@pytest.mark.parametrize("window", range(3 * GRID, 16 * GRID, GRID))
def test_extreme_bytes(window: int, fill: int) -> None:
    """Sums that overflow most, or not at all, are those of the definition."""
    data = bytes([fill]) * (window + 2 * GRID)
    assert grid_hashes(array(data), window).tolist() == [hash_of(data[:window])] * 3


@settings(max_examples=30, deadline=None)
@given(WINDOWS, st.integers(1, 4), SOURCES)
def test_head_hashes(window: int, files: int, source: random.Random) -> None:
    """The windows at all offsets of a beginning, and those that are GRID shorter, hash by the definition."""
    heads = [source.randbytes(reach(window)) for _ in range(files)]
    whole, shorter = head_hashes(np.stack([array(head) for head in heads]), window)
    short = window - GRID
    assert whole.tolist() == [
        [hash_of(head[offset : offset + window]) for offset in range(GRID)] for head in heads
    ]
    assert shorter.tolist() == [
        [hash_of(head[offset : offset + short]) for offset in range(2 * GRID)] for head in heads
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(256, 5000), SOURCES)
def test_every_offset(min_length: int, source: random.Random) -> None:
    """A shortest file at any offset of an image covers one grid window, which hashes as in the file."""
    window = window_length(min_length)
    file = source.randbytes(min_length)
    hashes = head_hashes(array(file[: reach(window)])[np.newaxis], window)[0][0]
    for before in range(GRID):
        image = source.randbytes(before) + file + source.randbytes(GRID)
        first = -(-before // GRID)
        assert grid_hashes(array(image), window)[first] == hashes[first * GRID - before]


def test_window_length() -> None:
    """For every least length a window of whole blocks, three or more, whose reach no file falls short of."""
    for min_length in range(256, 5001):
        window = window_length(min_length)
        assert window % GRID == 0
        assert 3 * GRID <= window <= 960
        assert reach(window) <= min_length
    assert [window_length(length) for length in (256, 318, 319, 383, 1022, 1023, 1024, 10**9)] == (
        [192, 192, 256, 320, 896, 960, 960, 960]
    )
