"""Put the house together: the only place that names concrete classes from every room."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from jigdofs.build.account import Account
from jigdofs.config import CacheOptions, FetchOptions, InputOptions, ReadOptions, SourceOptions
from jigdofs.documents import Documents
from jigdofs.download import Supply
from jigdofs.errors import CacheError, UnsafeCache
from jigdofs.fetch.fetcher import Answer, Fetcher, Receiver, Request, SchemeFetcher
from jigdofs.fetch.file import FileFetcher
from jigdofs.format.checksum import Algorithm
from jigdofs.format.jigdo import JigdoFile
from jigdofs.image.raw_data import RawData
from jigdofs.image.reader import ImageReader
from jigdofs.load import LoadedImage, Loader, unique_names
from jigdofs.local_parts import LocalParts
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.cache import Cache
from jigdofs.parts.flights import Flights
from jigdofs.parts.locations import Locator
from jigdofs.parts.mirrors import Mirrors
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.open_file import OpenFiles
from jigdofs.parts.presence import Presence
from jigdofs.parts.spool import MemoryPlace, Place, TemporaryPlace
from jigdofs.parts.store import PartStore
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources
from jigdofs.templates import Progress, Templates

if TYPE_CHECKING:
    from jigdofs.fetch.http import HttpFetcher

_log = logging.getLogger(__name__)

MAX_OPEN_FILES = 512
MAX_OPEN_BYTES = 4 << 30
MEMORY_BYTES = 64 << 20
_FLUSH_INTERVAL_S = 5.0
_DEFAULT_FREE_BYTES = 1 << 30
_NO_SOURCES = SourceOptions()
_PSEUDO_LABELS = frozenset(algorithm.value for algorithm in Algorithm)


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


class LazyHttp:
    """Make the HTTP client when the first URL is fetched: importing httpx takes 100 ms."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._fetcher: HttpFetcher | None = None

    async def fetch(self, request: Request, receiver: Receiver) -> None:
        """Pass the request on."""
        await self._made().fetch(request, receiver)

    async def ask(self, request: Request) -> Answer:
        """Pass the question on."""
        return await self._made().ask(request)

    def _made(self) -> HttpFetcher:
        if self._fetcher is None:
            from jigdofs.fetch.http import HttpFetcher

            self._fetcher = HttpFetcher(self._options)
        return self._fetcher

    async def close(self) -> None:
        """Close all connections."""
        if self._fetcher is not None:
            await self._fetcher.close()


def open_cache(options: CacheOptions | None) -> Cache | None:
    """Open the cache; an unsafe directory is refused, an unusable one does without."""
    if options is None:
        return None
    free = options.min_free_bytes
    try:
        if free is None:
            options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.statvfs(options.directory)
            free = min(_DEFAULT_FREE_BYTES, status.f_blocks * status.f_frsize // 20)
        return Cache(options.directory, max_bytes=options.max_bytes, min_free_bytes=free)
    except UnsafeCache:
        raise
    except (CacheError, OSError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        _log.warning("going on without a cache: %s", reason)
        return None


def _open_files(options: CacheOptions | None) -> OpenFiles:
    """Keep some files open, but neither most of our descriptors nor most of a small cache."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    quota = options.max_bytes if options is not None else None
    return OpenFiles(
        min(MAX_OPEN_FILES, max(16, soft // 2)),
        MAX_OPEN_BYTES if quota is None else min(MAX_OPEN_BYTES, quota // 4),
    )


@dataclass(frozen=True, slots=True)
class _Foundation:
    """What loading and reading both stand on."""

    cache: Cache | None
    fetcher: Fetcher
    fallbacks: tuple[Place, ...]


async def _foundation(
    stack: contextlib.AsyncExitStack, cache_options: CacheOptions | None, fetch_options: FetchOptions
) -> _Foundation:
    cache = await stack.enter_async_context(_cache(cache_options))
    fetcher = await stack.enter_async_context(open_fetcher(fetch_options))
    return _Foundation(cache, fetcher, (TemporaryPlace(), MemoryPlace(MEMORY_BYTES)))


@contextlib.asynccontextmanager
async def open_fetcher(options: FetchOptions) -> AsyncIterator[Fetcher]:
    """Have what gets URLs and files, or asks for them."""
    http = LazyHttp(options)
    try:
        yield SchemeFetcher(http, FileFetcher(options.stall_timeout_s))
    finally:
        await http.close()


def _loader(house: _Foundation, fetch_options: FetchOptions, progress: Progress | None) -> Loader:
    return Loader(
        Documents(house.fetcher, house.cache, fetch_options),
        Templates(house.fetcher, house.cache, house.fallbacks, fetch_options, progress),
    )


async def _load(
    stack: contextlib.AsyncExitStack,
    house: _Foundation,
    inputs: InputOptions,
    fetch_options: FetchOptions,
    progress: Progress | None,
) -> list[LoadedImage]:
    """Load all images; their templates are closed with the stack."""
    loader = _loader(house, fetch_options, progress)
    loaded = []
    for source in inputs.sources:
        for image in await loader.load(source, inputs.image):
            stack.callback(os.close, image.template_file.fd)
            loaded.append(image)
    check_labels(inputs.mirrors, [image.description for image in loaded])
    return loaded


def check_labels(labels: Iterable[str], descriptions: Iterable[JigdoFile]) -> None:
    """Warn of a mirror for a label that no .jigdo uses: most probably a typing error."""
    descriptions = list(descriptions)
    unknown = set(labels).difference(*(description.servers for description in descriptions))
    if unknown:
        used = sorted({label for description in descriptions for label in description.labels()})
        for label in sorted(unknown.difference(used, _PSEUDO_LABELS)):
            _log.warning("no part has the label `%s'; labels here: %s", label, ", ".join(used) or "none")


@contextlib.asynccontextmanager
async def load_images(
    inputs: InputOptions,
    cache_options: CacheOptions | None,
    fetch_options: FetchOptions,
    progress: Progress | None = None,
) -> AsyncIterator[tuple[list[LoadedImage], Cache | None]]:
    """Load images without the means to read them, to tell what is in them.

    Raises:
        JigdofsError: an input cannot be had or is malformed.
    """
    async with contextlib.AsyncExitStack() as stack:
        house = await _foundation(stack, cache_options, fetch_options)
        yield await _load(stack, house, inputs, fetch_options, progress), house.cache


@dataclass(frozen=True, slots=True)
class Workshop:
    """What downloads need, whichever .jigdo they are of; connections and what is known of mirrors last.

    Attributes:
        loader: loads a .jigdo and its templates; the caller closes these.
        mirrors: how each did.
        remembered: what is known of local files, or None.
        labels: for which the user named mirrors.
        supply: says where the parts of an image come from, given its sources and its account.
    """

    loader: Loader
    mirrors: Mirrors
    remembered: Remembered | None
    labels: frozenset[str]
    supply: Callable[[LoadedImage, Sources | None, Account], Supply]


@contextlib.asynccontextmanager
async def open_workshop(
    user_mirrors: Mapping[str, tuple[str, ...]],
    cache_options: CacheOptions | None,
    fetch_options: FetchOptions,
    *,
    keep_parts: bool,
    progress: Progress | None = None,
) -> AsyncIterator[Workshop]:
    """Keep everything running that downloads need.

    Args:
        user_mirrors: label -> URL prefixes or directories that the user prefers.
        cache_options: where verified parts may be already.
        fetch_options: how transfers behave.
        keep_parts: fetch into the cache, and copy from there.
        progress: told how templates come in.

    Raises:
        JigdofsError: the cache directory is unsafe.
    """
    async with contextlib.AsyncExitStack() as stack:
        house = await _foundation(stack, cache_options, fetch_options)
        mirrors = Mirrors(fetch_options.connections, trio.current_time)
        acquirer = Acquirer(house.fetcher, mirrors, fetch_options)
        remembered = await stack.enter_async_context(_remembered(cache_options))
        objects = None
        if keep_parts and house.cache is not None:
            open_files = _open_files(cache_options)
            stack.callback(open_files.close)
            nursery = await stack.enter_async_context(_background())
            objects = ObjectStore(house.cache, Flights(nursery), open_files, house.fallbacks)

        def supply(image: LoadedImage, sources: Sources | None, account: Account) -> Supply:
            locator = Locator(image.description, user_mirrors, image.directory)
            store = None
            if objects is not None:
                store = PartStore(objects, acquirer, locator, lambda part: account.fetch(part.length))
            return Supply(locator, acquirer, fetch_options.connections, house.cache, sources, store)

        loader = _loader(house, fetch_options, progress)
        yield Workshop(loader, mirrors, remembered, frozenset(user_mirrors), supply)


@contextlib.asynccontextmanager
async def _remembered(options: CacheOptions | None) -> AsyncIterator[Remembered | None]:
    """Have what is known of local files, which is kept where the cache is."""
    remembered = await trio.to_thread.run_sync(open_remembered, options)
    try:
        yield remembered
    finally:
        if remembered is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(remembered.close)


def open_remembered(options: CacheOptions | None) -> Remembered | None:
    """Open what is known of local files, or None where nothing is to be kept."""
    if options is None or not os.path.isdir(options.directory):
        return None
    return Remembered(str(options.directory / "scanned.db"), report=_log.warning)


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
        house = await _foundation(stack, cache_options, fetch_options)
        loaded = await _load(stack, house, inputs, fetch_options, progress)
        open_files = _open_files(cache_options)
        stack.callback(open_files.close)  # after the flights, which may still land
        nursery = await stack.enter_async_context(_background())
        flights = Flights(nursery)
        objects = ObjectStore(house.cache, flights, open_files, house.fallbacks)
        mirrors = Mirrors(fetch_options.connections, trio.current_time)
        acquirer = Acquirer(house.fetcher, mirrors, fetch_options)
        local = None
        if source_options.paths:
            remembered = await stack.enter_async_context(_remembered(cache_options))
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


@contextlib.asynccontextmanager
async def _cache(options: CacheOptions | None) -> AsyncIterator[Cache | None]:
    """Have the cache open, and close it cleanly even when we are cancelled."""
    cache = await trio.to_thread.run_sync(open_cache, options)
    try:
        yield cache
    finally:
        if cache is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(cache.close)


@contextlib.asynccontextmanager
async def _background() -> AsyncIterator[trio.Nursery]:
    """Run the daemon's own tasks; they end with the block, whatever they are doing."""
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        finally:
            nursery.cancel_scope.cancel()


async def _tend(cache: Cache | None, images: tuple[Image, ...]) -> None:
    """Count what is present, and write the cache's notes down now and then."""
    for image in images:
        await trio.to_thread.run_sync(image.presence.count)
    while cache is not None:
        await trio.sleep(_FLUSH_INTERVAL_S)
        await trio.to_thread.run_sync(cache.flush)
