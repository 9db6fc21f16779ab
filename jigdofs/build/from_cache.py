"""Fill an image from the cache."""

from __future__ import annotations

from jigdofs.build.account import CACHE
from jigdofs.build.builder import Builder, Missing
from jigdofs.parts.cache import Cache
from jigdofs.parts.store import cache_key


def fill_from_cache(builder: Builder, missing: list[Missing], cache: Cache) -> list[Missing]:
    """Place every part that the cache holds; return the rest."""
    present = cache.present(cache_key(wanted.part) for wanted in missing)

    def obtain(wanted: Missing) -> bool:
        part = wanted.part
        if cache_key(part) not in present:
            return False
        file = cache.open(cache_key(part), part.length, part.checksum)
        if file is None:
            return False
        try:
            return builder.place(wanted, file.fd, 0, CACHE) == part.checksum
        finally:
            file.discard()

    return builder.fill(missing, obtain)
