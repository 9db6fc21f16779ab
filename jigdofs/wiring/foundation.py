"""What every kind of work stands on: cache, fetcher, loader, and tasks that end with it."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import stat
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from jigdofs.config import CacheOptions, FetchOptions, InputOptions
from jigdofs.documents import Documents
from jigdofs.errors import CacheError, InputError, UnsafeCache, UsageError
from jigdofs.fetch.fetcher import Answer, Receiver, Request, SchemeFetcher
from jigdofs.fetch.file import FileFetcher
from jigdofs.format.checksum import Algorithm
from jigdofs.format.jigdo import JigdoFile
from jigdofs.image.raw_data import TemplateFile
from jigdofs.load import LoadedImage, Loader
from jigdofs.parts.cache import Cache
from jigdofs.parts.directories import make_private
from jigdofs.parts.open_file import OpenFiles
from jigdofs.parts.spool import MemoryPlace, Place, TemporaryPlace
from jigdofs.sources.remembered import Remembered
from jigdofs.templates import Progress, Templates

if TYPE_CHECKING:
    from jigdofs.fetch.http import HttpFetcher

_log = logging.getLogger(__name__)

MAX_OPEN_FILES = 4096
"""Open at most: an image with more parts and chunks than that has each opened anew in every pass. With 512,
serving a warm image of 408 parts and 110 chunks reached 2.2 GB/s, with 4096 3.8."""
_OTHER_DESCRIPTORS = 96  # our own, connections, and what worker threads open for a moment
LEAST_DESCRIPTORS = 128
MAX_OPEN_BYTES = 4 << 30
MEMORY_BYTES = 64 << 20
_DEFAULT_FREE_BYTES = 1 << 30
_PSEUDO_LABELS = frozenset(algorithm.value for algorithm in Algorithm)


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

    def use(self, options: FetchOptions) -> None:
        """Follow other options from the next request on."""
        self._options = options
        if self._fetcher is not None:
            self._fetcher.use(options)


class OpenFetcher(SchemeFetcher):
    """Get URLs and files, under options that may change."""

    def __init__(self, http: LazyHttp, file: FileFetcher) -> None:
        super().__init__(http, file)
        self._lazy_http = http
        self._files = file

    def use(self, options: FetchOptions) -> None:
        """Follow other options from the next request on."""
        self._lazy_http.use(options)
        self._files.stall_timeout_s = options.stall_timeout_s


def open_cache(options: CacheOptions | None) -> Cache | None:
    """Open the cache; an unsafe directory is refused, an unusable one does without."""
    return _cache_or_reason(options)[0]


def _cache_or_reason(options: CacheOptions | None) -> tuple[Cache | None, str]:
    """Open the cache as `open_cache` does, or say why there is none."""
    if options is None:
        return None, "as was asked for"
    try:
        free = least_free_bytes(options)
        return Cache(options.directory, max_bytes=options.max_bytes, min_free_bytes=free), ""
    except UnsafeCache:
        raise
    except (CacheError, OSError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        _log.warning("going on without a cache: %s", reason)
        return None, str(reason)


def opened_cache(options: CacheOptions) -> Cache:
    """Open a cache, or raise `CacheError` where it cannot be used."""
    try:
        free = least_free_bytes(options)
        return Cache(options.directory, max_bytes=options.max_bytes, min_free_bytes=free)
    except OSError as error:
        raise CacheError(f"{error.filename or options.directory}: {error.strerror}") from error


def least_free_bytes(options: CacheOptions) -> int:
    """Return what must stay free on the filesystem; raise `CacheError` or `OSError`."""
    if options.min_free_bytes is not None:
        return options.min_free_bytes
    make_private(options.directory)
    status = os.statvfs(options.directory)
    return min(_DEFAULT_FREE_BYTES, status.f_blocks * status.f_frsize // 20)


def allow_descriptors() -> int:
    """Have as many files open as we may want to, and return how many that may be.

    Raises:
        UsageError: so few that reads would fail.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, 2 * MAX_OPEN_FILES)
    if wanted < LEAST_DESCRIPTORS:
        raise UsageError(
            f"needs {LEAST_DESCRIPTORS} file descriptors, and only {wanted} are allowed here (`ulimit -n')"
        )
    if soft < wanted:  # 1024 by default, so that programs with select(2) do not break; we have none
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft


def keep_open_files(options: CacheOptions | None) -> OpenFiles:
    """Keep some files open, but neither most of our descriptors nor most of a small cache."""
    return OpenFiles(*open_file_limits(options))


def open_file_limits(options: CacheOptions | None) -> tuple[int, int]:
    """Return how many files may be kept open, and of how many bytes together; raise `UsageError`."""
    count = allow_descriptors()
    quota = options.max_bytes if options is not None else None
    return (
        min(MAX_OPEN_FILES, count // 2, count - _OTHER_DESCRIPTORS),
        MAX_OPEN_BYTES if quota is None else min(MAX_OPEN_BYTES, quota // 4),
    )


@dataclass(frozen=True, slots=True)
class Foundation:
    """What loading and reading both stand on."""

    cache: Cache | None
    without_cache: str  # why there is none
    fetcher: OpenFetcher
    fallbacks: tuple[Place, ...]


async def lay_foundation(
    stack: contextlib.AsyncExitStack, cache_options: CacheOptions | None, fetch_options: FetchOptions
) -> Foundation:
    """Open cache and fetcher; they are closed with the stack. Raises `UnsafeCache` and `UsageError`."""
    allow_descriptors()
    cache, reason = await stack.enter_async_context(_cache(cache_options))
    fetcher = await stack.enter_async_context(open_fetcher(fetch_options))
    return Foundation(cache, reason, fetcher, (TemporaryPlace(), MemoryPlace(MEMORY_BYTES)))


@contextlib.asynccontextmanager
async def open_fetcher(options: FetchOptions) -> AsyncIterator[OpenFetcher]:
    """Have what gets URLs and files, or asks for them."""
    http = LazyHttp(options)
    try:
        yield OpenFetcher(http, FileFetcher(options.stall_timeout_s))
    finally:
        await http.close()


def make_loader(house: Foundation, fetch_options: FetchOptions, progress: Progress | None) -> Loader:
    """Have what loads .jigdo files and templates; `progress` is told how templates come in."""
    return Loader(
        Documents(house.fetcher, house.cache, fetch_options),
        Templates(house.fetcher, house.cache, house.fallbacks, fetch_options, progress),
    )


async def load(
    stack: contextlib.AsyncExitStack,
    house: Foundation,
    inputs: InputOptions,
    fetch_options: FetchOptions,
    progress: Progress | None,
) -> list[LoadedImage]:
    """Load all images; their templates are closed with the stack."""
    loader = make_loader(house, fetch_options, progress)
    loaded = []
    for source in inputs.sources:
        for image in await loader.load(source, inputs.image):
            stack.callback(os.close, image.template_file.fd)
            loaded.append(image)
    check_labels(inputs.labels, [image.description for image in loaded])
    return loaded


async def load_template_again(
    house: Foundation, image: LoadedImage, which: str, fetch_options: FetchOptions, opened: list[int]
) -> TemplateFile:
    """Have the template of an image anew, and its descriptor in `opened`.

    Raises:
        JigdofsError: it cannot be had, or another one has its place.
    """
    found: TemplateFile | None = None
    for again in await make_loader(house, fetch_options, None).load(image.source, which):
        if found is None and again.template_file.digest == image.template_file.digest:
            found = again.template_file
            opened.append(found.fd)
        else:
            os.close(again.template_file.fd)
    if found is None:
        raise InputError(f"{image.source}: names another template now")
    return found


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
        house = await lay_foundation(stack, cache_options, fetch_options)
        yield await load(stack, house, inputs, fetch_options, progress), house.cache


@contextlib.asynccontextmanager
async def keep_remembered(options: CacheOptions | None) -> AsyncIterator[Remembered | None]:
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
    path = options.directory / "scanned.db"
    for file in (path, path.with_name("scanned.db-journal")):  # SQLite would follow a link
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                _log.warning("%s is no file of our own; what is known of local files is not used", file)
                return None
    return Remembered(str(path), report=_log.warning)


@contextlib.asynccontextmanager
async def _cache(options: CacheOptions | None) -> AsyncIterator[tuple[Cache | None, str]]:
    """Have the cache open, or the reason why not, and close it cleanly even when we are cancelled."""
    cache, reason = await trio.to_thread.run_sync(_cache_or_reason, options)
    try:
        yield cache, reason
    finally:
        if cache is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(cache.close)


@contextlib.asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """Run the daemon's own tasks; they end with the block, whatever they are doing."""
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        finally:
            nursery.cancel_scope.cancel()
