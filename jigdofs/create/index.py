"""Which files may begin at a window of the image: the hashes of all files' beginnings, looked up by array.

Rules of this file:
* Files that begin alike share one entry, a *group*: a thousand files with one header cost what one costs.
* Windows inside a run (see `runs`) would be found at every window of the image's zeros; they are kept
  once per *pattern*, to tell where the image has such a run.
* A file costs some 1 KB: 64 hashes with their owners, and its share of the bitmap.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jigdofs.create.runs import Run, find_run, pattern_of
from jigdofs.create.windows import GRID, Bytes, Hashes, head_hashes
from jigdofs.errors import InputError

Numbers = NDArray[np.int64]

_BITS_PER_HASH = 16
"""Bits of the bitmap for each hash, at least: one in 16 of an image's other windows is looked up in vain."""
_NUMBER_BITS = 26
_NUMBER = np.uint64((1 << _NUMBER_BITS) - 1)
"""The low bits of a key: which hash it is, so that sorting needs no second array. The 38 bits left of a hash
let one window in 40,000 look like one of 100,000 files, which comparing settles."""
_AT_ONCE = 1 << 20  # hashes put into the bitmap at a time
_FEWEST_BITS = 16


class RunningFile(NamedTuple):
    """A file whose beginning has a run in it.

    Attributes:
        file: its number.
        run: within the beginning; it may go on behind it.
        pattern: number of what repeats.
    """

    file: int
    run: Run
    pattern: int


@dataclass(frozen=True, slots=True)
class Hits:
    """Windows of the image that look like a window of a file's beginning.

    Attributes:
        windows: which of the hashes that were looked up; ascending.
        owners: who has such a window: `group * GRID + offset in the file`, or `-1 - pattern`.
    """

    windows: Numbers
    owners: Numbers


class Index:
    """Know the beginnings of files.

    Args:
        window: length of the windows, a multiple of GRID.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self.groups: list[list[int]] = []
        """The files of each group, in the order in which they were added."""
        self.running: list[RunningFile] = []
        self.patterns: list[bytes] = []
        self._group_of: dict[bytes, int] = {}
        self._run_of: dict[int, tuple[Run, int]] = {}
        self._windows_of: defaultdict[int, set[int]] = defaultdict(set)
        self._added: list[tuple[Hashes, NDArray[np.int32]]] = []
        self._keys: Hashes = np.empty(0, np.uint64)
        self._owners: NDArray[np.int32] = np.empty(0, np.int32)
        self._bitmap: Bytes = np.zeros(1 << (_FEWEST_BITS - 3), np.uint8)
        self._shift = np.uint64(64 - _FEWEST_BITS)

    def add(self, heads: Bytes, files: list[int]) -> None:
        """Add files, some hundred at a time, with a row of `reach(window)` bytes for each."""
        whole, shorter = head_hashes(heads, self._window)
        repeating = (np.diff(np.sort(shorter, axis=1)) == 0).any(axis=1).tolist()
        new: list[tuple[int, int]] = []
        for row, file in enumerate(files):
            # not a window's hash: big-endian counters in a header leave that no more than eight bits
            key = hashlib.blake2b(heads[row].tobytes(), digest_size=16).digest()
            group = self._group_of.get(key)
            if group is None:
                group = self._group_of[key] = len(self.groups)
                self.groups.append([])
                run = find_run(heads[row].tobytes(), self._window) if repeating[row] else None
                if run is None:
                    new.append((row, group))
                else:
                    self._add_run(group, whole[row], heads[row].tobytes(), run)
            self.groups[group].append(file)
            if group in self._run_of:
                self.running.append(RunningFile(file, *self._run_of[group]))
        rows = np.array([row for row, _ in new], np.int64)
        groups = np.array([group for _, group in new], np.int64)
        owners = groups[:, np.newaxis] * GRID + np.arange(GRID)
        self._added.append((whole[rows].ravel(), owners.ravel().astype(np.int32)))

    def _add_run(self, group: int, hashes: Hashes, head: bytes, run: Run) -> None:
        turned = pattern_of(head, run)
        if turned not in self.patterns:
            self.patterns.append(turned)
        pattern = self.patterns.index(turned)
        self._run_of[group] = run, pattern
        offsets = np.arange(GRID)
        inside = (run.start <= offsets) & (offsets + self._window <= run.end)
        owners = np.where(inside, -1 - pattern, group * GRID + offsets).astype(np.int32)
        # a pattern has each of its windows from many files
        known = self._windows_of[pattern]
        new = np.ones(GRID, np.bool_)
        for offset in np.flatnonzero(inside).tolist():
            new[offset] = (window := int(hashes[offset])) not in known
            known.add(window)
        self._added.append((hashes[new], owners[new]))

    def seal(self) -> None:
        """Make ready for looking up; nothing is added from then on. Raise `InputError` for too many files."""
        self._owners = np.concatenate([owners for _, owners in self._added] or [self._owners])
        keys = np.concatenate([hashes for hashes, _ in self._added] or [self._keys])
        for used_up in (self._added, self._group_of, self._run_of, self._windows_of):
            used_up.clear()
        if len(keys) > int(_NUMBER):
            raise InputError(f"more than {int(_NUMBER) // GRID:,} files cannot be looked for at once")
        keys &= ~_NUMBER
        keys |= np.arange(len(keys), dtype=np.uint64)
        keys.sort()
        self._keys = keys
        bits = max((len(keys) * _BITS_PER_HASH).bit_length(), _FEWEST_BITS)
        self._shift = np.uint64(64 - bits)
        self._bitmap = np.zeros(1 << (bits - 3), np.uint8)
        for first in range(0, len(keys), _AT_ONCE):
            places = keys[first : first + _AT_ONCE] >> self._shift
            mask = np.uint8(1) << (places & np.uint64(7)).astype(np.uint8)
            np.bitwise_or.at(self._bitmap, places >> np.uint64(3), mask)

    def find(self, hashes: Hashes) -> Hits:
        """Look up windows; a window with several owners comes several times."""
        places = hashes >> self._shift
        bits = self._bitmap[(places >> np.uint64(3)).view(np.int64)]
        bits >>= places.astype(np.uint8) & np.uint8(7)
        maybe = np.flatnonzero(bits & np.uint8(1))
        wanted = hashes[maybe]
        first = np.searchsorted(self._keys, wanted & ~_NUMBER, side="left")
        counts = np.searchsorted(self._keys, wanted | _NUMBER, side="right") - first
        maybe, first, counts = maybe[counts > 0], first[counts > 0], counts[counts > 0]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        numbers = (self._keys[np.repeat(first, counts) + within] & _NUMBER).view(np.int64)
        return Hits(np.repeat(maybe, counts), self._owners[numbers].astype(np.int64))
