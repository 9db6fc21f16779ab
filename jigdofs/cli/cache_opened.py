"""Have a cache open for a verb."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jigdofs.config import CacheOptions
from jigdofs.parts.cache import Cache
from jigdofs.wiring.foundation import opened_cache


@contextmanager
def opened(options: CacheOptions) -> Iterator[Cache]:
    """Have a cache open that exists; raise `CacheError`."""
    cache = opened_cache(options)
    try:
        yield cache
    finally:
        cache.close()
