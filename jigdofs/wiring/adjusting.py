"""Change options in a house that is lived in: who follows them, and what follows from them."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import trio

from jigdofs.config import CacheOptions, FetchOptions, LiveOptions, ReadOptions
from jigdofs.errors import CacheError
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.brake import Brake
from jigdofs.parts.cache import Cache
from jigdofs.parts.mirrors import SPARE_SHARE, Mirrors
from jigdofs.parts.open_file import OpenFiles
from jigdofs.prefetch.fill import Prefetcher
from jigdofs.wiring.foundation import OpenFetcher, least_free_bytes, open_file_limits
from jigdofs.wiring.image import Image

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adjustable:
    """Everything that follows options while images are read.

    Attributes:
        fetcher: gets bytes.
        acquirer: asks locations.
        mirrors: bounds connections.
        brake: bounds the background.
        prefetcher: has so many parts fetched at a time.
        images: those that are read.
        open_files: are kept open within the limits of the cache.
        cache: holds its limits.
        cache_options: as they were at the start.
    """

    fetcher: OpenFetcher
    acquirer: Acquirer
    mirrors: Mirrors
    brake: Brake
    prefetcher: Prefetcher
    images: tuple[Image, ...]
    open_files: OpenFiles
    cache: Cache | None
    cache_options: CacheOptions | None

    async def apply(self, live: LiveOptions, changed: AbstractSet[str]) -> None:
        """Follow other options from now on; what is on its way goes on as it began.

        Args:
            live: the options.
            changed: the settings that differ: of the others some may have been changed by other means.
        """
        self.fetcher.use(live.fetch)
        self.acquirer.use(within(live.read, live.fetch))
        self.mirrors.limit(live.fetch.connections)
        self.prefetcher.width = background_width(live.fetch)
        if "bwlimit" in changed:
            self.brake.bytes_per_s = live.max_bytes_per_s
        limits = self.cache_options
        if limits is not None:
            limits = replace(limits, max_bytes=live.cache_max_bytes, min_free_bytes=live.cache_min_free_bytes)
        ahead = readahead_bytes(live.read, limits)
        for image in self.images:
            image.contents.limit(live.read.timeout_s)
            if image.store is not None:
                image.store.locator.prefer(live.mirrors)
            image.reader.limit(
                timeout_s=live.read.timeout_s,
                readahead_bytes=0 if image.store is None else ahead,  # what lies here as a whole needs none
            )
        if self.cache is not None and limits is not None and changed & _OF_THE_CACHE:
            self.open_files.limit(*open_file_limits(limits))  # what is open is not evicted
            try:
                free = await trio.to_thread.run_sync(least_free_bytes, limits)
                await trio.to_thread.run_sync(self.cache.limit, limits.max_bytes, free)
            except (CacheError, OSError) as error:
                _log.warning("the cache has its new limits, but was not brought below them: %s", error)


_OF_THE_CACHE = frozenset(("cache-max-size", "cache-min-free"))


def within(read: ReadOptions, fetch: FetchOptions) -> FetchOptions:
    """Have all slow locations of a part together leave a read the time to ask a good one."""
    return replace(fetch, patience_s=min(fetch.patience_s, read.timeout_s / 2))


def readahead_bytes(read: ReadOptions, cache: CacheOptions | None) -> int:
    """Never fetch so far ahead that a small cache loses it again before it is read."""
    if cache is None or cache.max_bytes is None:
        return read.readahead_bytes
    return min(read.readahead_bytes, cache.max_bytes // 4)


def background_width(fetch: FetchOptions) -> int:
    """Return how many parts the background has fetched at a time: some connections are left for readers."""
    return max(1, fetch.connections - fetch.connections // SPARE_SHARE)
