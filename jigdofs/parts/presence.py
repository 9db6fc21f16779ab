"""How many bytes of an image are here already: for `du`, `ls -s` and status."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from jigdofs.format.part import Part
from jigdofs.parts.cache import Cache
from jigdofs.parts.store import cache_key


class Extents(Protocol):
    """What we need of a layout."""

    @property
    def length(self) -> int:
        """Bytes of the image."""

    @property
    def raw_length(self) -> int:
        """Bytes of it that come from the template."""

    def parts(self) -> Iterator[tuple[int, Part]]:
        """Yield every occurrence of a part."""


class Presence:
    """Count present bytes: once by a look at the cache, then by what is fetched.

    What is evicted meanwhile is not subtracted: the number may be too large, never beyond the image.

    Args:
        extents: of the image.
        cache: where its parts may be, or None.
    """

    def __init__(self, extents: Extents, cache: Cache | None) -> None:
        self._extents = extents
        self._cache = cache
        self._bytes = extents.raw_length
        self._repeated: dict[Part, int] = {}  # parts that occur more than once

    @property
    def bytes(self) -> int:
        """Bytes of the image that can be read without fetching anything."""
        return min(self._bytes, self._extents.length)

    def add(self, part: Part) -> None:
        """Note a part that was fetched."""
        self._bytes += part.length * self._repeated.get(part, 1)

    def count(self) -> None:
        """Look at the cache; blocks, 60,000 parts take some 0.2 s."""
        counts = collections.Counter(part for _, part in self._extents.parts())
        self._repeated = {part: count for part, count in counts.items() if count > 1}
        if self._cache is not None:
            self._bytes = self._extents.raw_length + present_bytes(counts.elements(), self._cache.present)


def present_bytes(parts: Iterable[Part], present: Callable[[Iterable[str]], set[str]]) -> int:
    """Add up the lengths of those occurrences whose part is in the cache."""
    occurrences = [(cache_key(part), part.length) for part in parts]
    found = present(key for key, _ in occurrences)
    return sum(length for key, length in occurrences if key in found)
