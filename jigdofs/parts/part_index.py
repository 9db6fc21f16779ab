"""Where in an image each of its parts lies: packed, so that 200,000 parts take 3 MB, and found by bisection.

Invariants of this file:
* Buckets are chosen by Python's hash, which is salted: no image can be made whose parts share one.
* While it is made, others have their turn with the interpreter every few milliseconds.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Protocol

from jigdofs.format.part import Part

_BUCKETS = 256
_KEY_MASK = (1 << 64) - 1
_BUCKET_SHIFT = 56
PAUSE_S = 0.001
EXTENTS_BEFORE_PAUSE = 2048


class Extents(Protocol):
    """What we need of a layout."""

    @property
    def length(self) -> int:
        """Bytes of the image."""

    @property
    def raw_length(self) -> int:
        """Bytes of it that come from the template."""

    def __len__(self) -> int:
        """Count the extents."""

    def start(self, index: int) -> int:
        """Return the image offset at which an extent begins."""

    def part(self, index: int) -> Part | None:
        """Return the part of an extent, or None where it is unmatched data."""


class Run:
    """All extents of one part, in order.

    Attributes:
        first: the number of the first.
        count: how many there are.
    """

    __slots__ = ("_begin", "_numbers", "count", "first")

    def __init__(self, numbers: array[int], begin: int, end: int) -> None:
        self._numbers = numbers
        self._begin = begin
        self.first = numbers[begin]
        self.count = end - begin

    def __iter__(self) -> Iterator[int]:
        """Yield their numbers."""
        for at in range(self._begin, self._begin + self.count):
            yield self._numbers[at]


class PartIndex:
    """The extents of an image by their part; made once, which blocks: 60,000 parts take 0.2 s.

    Attributes:
        parts: how many different ones there are.
        shards: by the first byte of the checksum, the first extents of the parts.

    Args:
        extents: of the image.
    """

    def __init__(self, extents: Extents) -> None:
        self._extents = extents
        self._keys: list[array[int]] = [array("Q") for _ in range(_BUCKETS)]
        self._numbers: list[array[int]] = [array("I") for _ in range(_BUCKETS)]
        shard_of = bytearray(len(extents))
        for number in range(len(extents)):
            part = extents.part(number)
            if part is not None:
                key = _key(part)
                shard_of[number] = part.checksum.digest[0]
                self._keys[key >> _BUCKET_SHIFT].append(key)
                self._numbers[key >> _BUCKET_SHIFT].append(number)
            if not number % EXTENTS_BEFORE_PAUSE:
                time.sleep(PAUSE_S)
        self.parts = 0
        self.shards: dict[int, array[int]] = {}
        for bucket in range(_BUCKETS):
            self._sort(bucket)
            for first in self._firsts(bucket):
                self.parts += 1
                self.shards.setdefault(shard_of[first], array("I")).append(first)
            if len(self._keys[bucket]) >= EXTENTS_BEFORE_PAUSE // 8:
                time.sleep(PAUSE_S)

    def _sort(self, bucket: int) -> None:
        keys, numbers = self._keys[bucket], self._numbers[bucket]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self._keys[bucket] = array("Q", [keys[at] for at in order])
        self._numbers[bucket] = array("I", [numbers[at] for at in order])

    def _firsts(self, bucket: int) -> Iterator[int]:
        """Yield the first extent of each part."""
        before = -1
        for key, number in zip(self._keys[bucket], self._numbers[bucket], strict=True):
            if key != before:
                yield number
            before = key

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of all extents that are parts, in no order."""
        for numbers in self._numbers:
            yield from numbers

    def find(self, part: Part) -> Run | None:
        """Return where a part lies in the image, or None if it does not."""
        key = _key(part)
        keys, numbers = self._keys[key >> _BUCKET_SHIFT], self._numbers[key >> _BUCKET_SHIFT]
        begin = bisect_left(keys, key)
        if begin == len(keys) or keys[begin] != key or self._extents.part(numbers[begin]) != part:
            return None
        end = begin + 1
        if end < len(keys) and keys[end] == key:
            end = bisect_left(keys, key + 1, begin) if key < _KEY_MASK else len(keys)
        return Run(numbers, begin, end)


def _key(part: Part) -> int:
    """Return 64 bits that tell parts apart: two of 200,000 are alike once in a billion images."""
    return hash(part) & _KEY_MASK
