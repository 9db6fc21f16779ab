"""Hashes of windows of bytes: hints where a file may begin in an image, never a verdict. Pure.

A file that lies anywhere in an image covers, with its first `window + GRID - 1` bytes, exactly one whole
window that begins at a multiple of GRID. So the image is hashed at multiples of GRID only (0.6 ns a byte
and one core, where rolling a sum from byte to byte takes numpy 10), each file at its first GRID offsets,
and equal hashes tell the file and the place: every offset is searched, no sector has to be aligned.

The hash is a sum of little-endian 64-bit words with odd weights, modulo 2^64; a window's is put together
from those of its GRID-byte blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]

GRID = 64
"""Distance of windows in the image, bytes. A file costs 64 entries of the index; with 32 it would be half
of that, and twice as many windows of the image would be looked up."""
_MAX_WINDOW = 960
"""Longest window, bytes: what fits a shortest part of 1024 bytes, jigdo-file's default. A longer one
would tell files apart that have more than this in common; comparing does that as well."""

_WORD = np.dtype("<u8")
_WORDS = GRID // _WORD.itemsize
_MODULUS = 1 << 64
_STEP = 0x9E3779B97F4A7C15  # odd, so that no block's part of the sum is lost
_WEIGHTS = np.array([pow(_STEP, 3 * word + 1, _MODULUS) ^ (word << 8) for word in range(_WORDS)], np.uint64)


def window_length(min_length: int) -> int:
    """Return the length of the windows that find every file of at least `min_length` bytes (256 or more)."""
    return min((min_length - GRID + 1) // GRID * GRID, _MAX_WINDOW)


def reach(window: int) -> int:
    """Return how much of a file's beginning `head_hashes` needs, bytes."""
    return window + GRID - 1


def grid_hashes(data: Bytes, window: int) -> Hashes:
    """Return the hash of every whole window that begins at a multiple of GRID.

    Args:
        data: at least one window; what goes beyond the last multiple of GRID is not looked at.
        window: its length, a multiple of GRID.
    """
    blocks = data[: len(data) // GRID * GRID].view(_WORD).reshape(-1, _WORDS) @ _WEIGHTS
    count = window // GRID
    total = np.zeros(len(blocks) - count + 1, np.uint64)
    # sums over 1, 2, 4, ... blocks; those that the binary form of `count` names make up the window
    done, size, doubled = 0, 1, blocks
    while True:
        if count & size:
            total += _power(done) * doubled[done : done + len(total)]
            done += size
        if done == count:
            return total
        doubled = doubled[:-size] + _power(size) * doubled[size:]
        size *= 2


def head_hashes(heads: Bytes, window: int) -> tuple[Hashes, Hashes]:
    """Hash the windows at the first GRID offsets of each row.

    Args:
        heads: a row per file, each of `reach(window)` bytes.
        window: its length, a multiple of GRID, at least two of them.

    Returns:
        A row of GRID hashes per file, and one of 2 * GRID hashes of windows that are GRID shorter: two of
        those are equal where the file repeats itself.
    """
    files, count = len(heads), window // GRID
    powers = np.array([pow(_STEP, block, _MODULUS) for block in range(count)], np.uint64)
    whole = np.empty((files, GRID), np.uint64)
    shorter = np.empty((files, 2 * GRID), np.uint64)
    for offset in range(GRID):
        shifted = np.ascontiguousarray(heads[:, offset : offset + window])
        blocks = shifted.view(_WORD).reshape(files, count, _WORDS) @ _WEIGHTS
        whole[:, offset] = blocks @ powers
        shorter[:, offset] = blocks[:, :-1] @ powers[:-1]
        shorter[:, offset + GRID] = blocks[:, 1:] @ powers[:-1]
    return whole, shorter


def _power(exponent: int) -> Any:
    return np.uint64(pow(_STEP, exponent, _MODULUS))
