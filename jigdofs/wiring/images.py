"""Images that can be read, and everything that keeps running for it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import trio

from jigdofs.config import CacheOptions, FetchOptions, InputOptions, ReadOptions, SourceOptions
from jigdofs.image.raw_data import RawData
from jigdofs.image.reader import ImageReader
from jigdofs.load import LoadedImage, unique_names
from jigdofs.local_parts import LocalParts
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.cache import Cache
from jigdofs.parts.flights import Flights
from jigdofs.parts.locations import Locator
from jigdofs.parts.mirrors import Mirrors
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.presence import Presence
from jigdofs.parts.store import PartStore
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources
from jigdofs.templates import Progress
from jigdofs.wiring.foundation import background, keep_open_files, keep_remembered, lay_foundation, load

_log = logging.getLogger(__name__)

_FLUSH_INTERVAL_S = 5.0
_NO_SOURCES = SourceOptions()


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can be read."""

    name: str
    loaded: LoadedImage
    reader: ImageReader
    presence: Presence

    @property
    def present_bytes(self) -> int:
        """Bytes that can be read without fetching anything."""
        return self.presence.bytes

    @property
    def mtime_ns(self) -> int:
        """When the .jigdo was last changed."""
        return int(self.loaded.mtime_s * 1e9)


@dataclass(frozen=True, slots=True)
class Images:
    """All images of a mount.

    Attributes:
        images: in the order they were named.
        stop: fail every read that waits, now and later; called before the end.
    """

    images: tuple[Image, ...]
    stop: Callable[[], None]


@contextlib.asynccontextmanager
async def open_images(
    inputs: InputOptions,
    cache_options: CacheOptions | None,
    fetch_options: FetchOptions,
    read_options: ReadOptions,
    *,
    source_options: SourceOptions = _NO_SOURCES,
    progress: Progress | None = None,
) -> AsyncIterator[Images]:
    """Load the images and keep everything running that reading them needs.

    Raises:
        JigdofsError: an input cannot be had or is malformed.
    """
    async with contextlib.AsyncExitStack() as stack:
        house = await lay_foundation(stack, cache_options, fetch_options)
        loaded = await load(stack, house, inputs, fetch_options, progress)
        open_files = keep_open_files(cache_options)
        stack.callback(open_files.close)  # after the flights, which may still land
        nursery = await stack.enter_async_context(background())
        flights = Flights(nursery)
        objects = ObjectStore(house.cache, flights, open_files, house.fallbacks)
        mirrors = Mirrors(fetch_options.connections, trio.current_time)
        acquirer = Acquirer(house.fetcher, mirrors, fetch_options)
        local = None
        if source_options.paths:
            remembered = await stack.enter_async_context(keep_remembered(cache_options))
            local = LocalParts(_sources(source_options, remembered))
            lengths = {part.length for image in loaded for _, part in image.layout.parts()}
            nursery.start_soon(local.search, lengths)

        def build(name: str, image: LoadedImage) -> Image:
            presence = Presence(image.layout, house.cache)
            locator = Locator(image.description, inputs.mirrors, image.directory)
            reader = ImageReader(
                image.layout,
                RawData(image.template_file, image.chunks, objects),
                PartStore(
                    objects, acquirer, locator, presence.add, local.find if local is not None else None
                ),
                timeout_s=read_options.timeout_s,
                readahead_bytes=_readahead_bytes(read_options, cache_options),
            )
            return Image(name, image, reader, presence)

        images = tuple(build(name, image) for name, image in unique_names(loaded).items())
        nursery.start_soon(_tend, house.cache, images)
        yield Images(images, flights.stop)


def _sources(options: SourceOptions, remembered: Remembered | None) -> Sources:
    return Sources(options.paths, remembered=remembered, report=_log.warning, besides=options.avoid)


def _readahead_bytes(read: ReadOptions, cache: CacheOptions | None) -> int:
    """Never fetch so far ahead that a small cache loses it again before it is read."""
    if cache is None or cache.max_bytes is None:
        return read.readahead_bytes
    return min(read.readahead_bytes, cache.max_bytes // 4)


async def _tend(cache: Cache | None, images: tuple[Image, ...]) -> None:
    """Count what is present, and write the cache's notes down now and then."""
    for image in images:
        await trio.to_thread.run_sync(image.presence.count)
    while cache is not None:
        await trio.sleep(_FLUSH_INTERVAL_S)
        await trio.to_thread.run_sync(cache.flush)
