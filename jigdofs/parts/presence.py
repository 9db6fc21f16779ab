"""What of an image is here already: how many bytes and parts, and where; for `du`, `ls -s` and status."""

from __future__ import annotations

import itertools
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from jigdofs.format.part import Part
from jigdofs.parts.part_index import Extents, PartIndex
from jigdofs.parts.picture import Cells, Picture
from jigdofs.parts.store import cache_key

_PAUSE_S = 0.001
_PARTS_BEFORE_PAUSE = 64
_PARTS_AT_ONCE = 1 << 14
"""Each takes some 600 bytes while it is looked for, and each time some hundred directories are listed."""


class Kept(Protocol):
    """Where parts are kept; all may be asked by any thread, and may block."""

    def present(self, keys: Iterable[str]) -> set[str]:
        """Return those keys that have a file."""

    def generation(self) -> int:
        """Return a number that is another one when files may have gone since."""


class Presence:
    """Know what is present: by a look at the cache now and then, and by what is fetched in between.

    What is evicted, or fetched by others, is known after the next look. One thread counts at a time; others
    may add and ask meanwhile.

    Args:
        extents: of the image.
        cache: where its parts may be, if anywhere.
    """

    def __init__(self, extents: Extents, cache: Kept | None) -> None:
        self._extents = extents
        self._cache = cache
        self._index: PartIndex | None = None  # until the first count
        self._early: dict[Part, bool] = {}  # had before that, and whether elsewhere
        self._early_bytes = 0
        self._picture: Picture | None = None  # what is here, as far as known
        self._next: Picture | None = None  # the same, while it is counted anew
        self._elsewhere = (
            bytearray()
        )  # by first extent: those that local files have, no look at the cache tells
        self._marking = threading.Lock()  # held for a few microseconds
        self._seen = -1  # how the cache was when it was looked at
        self._blurred = False  # the picture's cells lack something, or it has what may not have been kept

    @property
    def bytes(self) -> int:
        """Bytes of the image that can be read without fetching anything."""
        picture = self._picture or self._next
        here = self._early_bytes if picture is None else picture.bytes
        return min(self._extents.raw_length + here, self._extents.length)

    @property
    def parts(self) -> int | None:
        """How many different parts the image has; None as long as the first count is not done."""
        return None if self._picture is None or self._index is None else self._index.parts

    @property
    def parts_present(self) -> int | None:
        """How many of them are here; None as long as the first count is not done."""
        return None if self._picture is None else self._picture.parts

    def cells(self, count: int, in_flight: Iterable[Part]) -> str | None:
        """Return the image as a row of cells, each a letter of `Cells`; None before the first count.

        Args:
            count: how many, up to 1024; a small image has fewer.
            in_flight: parts that are on their way.
        """
        if self._picture is None or self._index is None:
            return None
        return self._picture.drawn(count, map(self._index.find, in_flight))

    def is_of(self, part: Part) -> bool:
        """Tell whether a part is one of this image, as far as known."""
        return self._index is not None and self._index.find(part) is not None

    def add(self, part: Part, *, elsewhere: bool) -> None:
        """Note a part that was fetched, or that was found in a file elsewhere."""
        with self._marking:
            if self._index is None:
                if part not in self._early:
                    self._early_bytes += part.length
                self._early[part] = elsewhere
                return
            run = self._index.find(part)
            if run is None:
                return
            if elsewhere:
                self._elsewhere[run.first] = 1
            elif self._cache is not None:
                self._blurred = True  # a full cache does not keep it, and shows nothing of that
            for picture in (self._picture, self._next):
                if picture is not None and not picture.add(run, part.length):
                    self._blurred = True

    def count_again(self) -> None:
        """Look at the cache if files may have come or gone since the last look; blocks: for 1 ms if not."""
        if self._blurred or (self._cache is not None and self._cache.generation() != self._seen):
            self.count()

    def count(self) -> None:
        """Look at the cache; blocks, 60,000 parts take some 0.3 s, with pauses in which others run.

        It is done by shards of the cache, so that no more than some hundred parts are objects at a time.
        """
        seen = -1 if self._cache is None else self._cache.generation()
        index = self._index or PartIndex(self._extents)
        cells = self._picture.cells if self._picture is not None else Cells(self._extents, index.numbers())
        fresh = Picture(self._extents, cells)
        with self._marking:
            self._blurred = False
            if self._index is None:
                self._elsewhere = bytearray(len(self._extents))
            self._index, self._next = index, fresh
            early, self._early = self._early, {}
        for part, elsewhere in early.items():
            self.add(part, elsewhere=elsewhere)
        self._mark(fresh, index, self._found_elsewhere())
        if self._cache is not None:
            for numbers in _pieces(index.shards.values()):
                keys = {
                    cache_key(found): number for number in numbers if (found := self._extents.part(number))
                }
                self._mark(fresh, index, [keys[key] for key in self._cache.present(keys)])
                if len(keys) >= _PARTS_BEFORE_PAUSE:
                    time.sleep(_PAUSE_S)
        with self._marking:
            self._picture, self._next = fresh, None
        self._seen = seen

    def _mark(self, picture: Picture, index: PartIndex, firsts: Iterable[int]) -> None:
        """Note parts that were found, by their first extents; all their extents, however many."""
        for number in firsts:
            part = self._extents.part(number)
            run = None if part is None else index.find(part)
            if part is not None and run is not None:
                with self._marking:
                    picture.add(run, part.length, thorough=True)

    def _found_elsewhere(self) -> Iterator[int]:
        at = self._elsewhere.find(1)
        while at >= 0:
            yield at
            at = self._elsewhere.find(1, at + 1)


def _pieces(shards: Iterable[array[int]]) -> Iterator[array[int]]:
    """Yield the numbers of each shard, those of a large one in pieces: all parts may have one first byte."""
    for numbers in shards:
        for at in range(0, len(numbers), _PARTS_AT_ONCE):
            yield numbers[at : at + _PARTS_AT_ONCE]


def present_bytes(parts: Iterable[Part], present: Callable[[Iterable[str]], set[str]]) -> int:
    """Add up the lengths of those occurrences whose part is in the cache; some thousand at a time."""
    total = 0
    parts = iter(parts)
    while some := list(itertools.islice(parts, _PARTS_AT_ONCE)):
        counts = Counter(some)
        keys = {cache_key(part): part for part in counts}
        total += sum(keys[key].length * counts[keys[key]] for key in present(keys))
    return total
