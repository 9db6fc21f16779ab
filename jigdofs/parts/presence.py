"""How many bytes of an image are here already: for `du`, `ls -s` and status."""

from __future__ import annotations

import collections
import itertools
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from jigdofs.format.part import Part
from jigdofs.parts.cache import Cache
from jigdofs.parts.store import cache_key

_PAUSE_S = 0.001
_PARTS_BEFORE_PAUSE = 64
_MOST_AT_ONCE = 1 << 14
_PARTS_AT_ONCE = 1 << 14
"""Each takes some 600 bytes while it is looked for, and each time some hundred directories are listed."""


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

    def part(self, index: int) -> Part | None:
        """Return the part of an extent, or None where it is unmatched data."""


class Presence:
    """Count present bytes: by a look at the cache now and then, and by what is fetched in between.

    What is evicted, or fetched by others, is known after the next look.

    Args:
        extents: of the image.
        cache: where its parts may be, or None.
    """

    def __init__(self, extents: Extents, cache: Cache | None) -> None:
        self._extents = extents
        self._cache = cache
        self._bytes = extents.raw_length
        self._repeated: dict[Part, int] = {}  # parts that occur more than once
        self._new: set[Part] = set()  # fetched while we count, unless we found them
        self._counted = False
        self._elsewhere: set[int] = set()  # hashes of those that local files have: no look at the cache tells
        self._elsewhere_bytes = 0
        self._seen_ns = -1  # how the cache was when it was looked at

    @property
    def bytes(self) -> int:
        """Bytes of the image that can be read without fetching anything."""
        return min(self._bytes, self._extents.length)

    def add(self, part: Part, *, elsewhere: bool) -> None:
        """Note a part that was fetched, or that was found in a file elsewhere."""
        length = part.length * self._repeated.get(part, 1)
        if elsewhere:
            if hash(part) in self._elsewhere:
                return
            self._elsewhere.add(hash(part))
            self._elsewhere_bytes += length
        elif not self._counted:
            self._new.add(part)
        self._bytes += length

    def count_again(self) -> None:
        """Look at the cache if files came or went since the last look; blocks: that itself takes 1 ms."""
        if self._cache is not None and self._cache.changed_ns() != self._seen_ns:
            self.count()

    def count(self) -> None:
        """Look at the cache; blocks, 60,000 parts take some 0.5 s, with pauses in which others run.

        It is done by shards of the cache, so that no more than some hundred parts are objects at a time.
        """
        seen_ns = -1 if self._cache is None else self._cache.changed_ns()
        self._counted = False
        self._new.clear()
        part_of = self._extents.part
        shards: dict[int, array[int]] = {}
        for index in range(len(self._extents)):
            part = part_of(index)
            if part is not None:
                shards.setdefault(part.checksum.digest[0], array("I")).append(index)
        here = self._extents.raw_length
        repeated: dict[Part, int] = {}
        for indices in _split(shards.values(), part_of):
            counts = collections.Counter(part for part in map(part_of, indices) if part is not None)
            repeated |= {part: count for part, count in counts.items() if count > 1}
            if self._cache is not None:
                found = _present(counts, self._cache.present)
                here += sum(part.length * counts[part] for part in found)
                self._new.difference_update(found)
            if len(indices) >= _PARTS_BEFORE_PAUSE:
                time.sleep(_PAUSE_S)
        self._repeated = repeated
        self._counted = True
        new = sum(part.length * repeated.get(part, 1) for part in self._new)
        self._bytes = here + new + self._elsewhere_bytes
        self._seen_ns = seen_ns
        self._new.clear()


def _split(shards: Iterable[array[int]], part_of: Callable[[int], Part | None]) -> Iterator[array[int]]:
    """Yield the indices of each shard, those of a large one in pieces: all parts may have one first byte."""
    for indices in shards:
        count = -(-len(indices) // _MOST_AT_ONCE)
        if count <= 1:
            yield indices
            continue
        pieces = [array("I") for _ in range(count)]
        for index in indices:
            pieces[hash(part_of(index)) % count].append(index)  # a part that is repeated goes to one of them
        yield from pieces


def present_bytes(parts: Iterable[Part], present: Callable[[Iterable[str]], set[str]]) -> int:
    """Add up the lengths of those occurrences whose part is in the cache; some thousand at a time."""
    total = 0
    parts = iter(parts)
    while some := list(itertools.islice(parts, _PARTS_AT_ONCE)):
        counts = collections.Counter(some)
        total += sum(part.length * counts[part] for part in _present(counts, present))
    return total


def _present(parts: Iterable[Part], present: Callable[[Iterable[str]], set[str]]) -> list[Part]:
    """Return the parts that are in the cache."""
    keys = {cache_key(part): part for part in parts}
    return [keys[key] for key in present(keys)]
