"""Images that can be read, and everything that keeps running for it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import trio

from jigdofs.config import (
    BackgroundOptions,
    CacheOptions,
    FetchOptions,
    InputOptions,
    ReadOptions,
    SourceOptions,
)
from jigdofs.contents.contents import ImageContents
from jigdofs.contents.namespace import Namespace, Shown
from jigdofs.errors import printable
from jigdofs.image.layout import Layout
from jigdofs.image.raw_data import RawData
from jigdofs.image.reader import ImageReader
from jigdofs.iso9660.tree import MAGIC as MAGIC_OF_TREES
from jigdofs.load import LoadedImage, unique_names
from jigdofs.local_parts import LocalParts
from jigdofs.names import directory_names, leaf_name, unique_name
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.brake import Brake
from jigdofs.parts.cache import Cache
from jigdofs.parts.flights import Flights
from jigdofs.parts.locations import Locator
from jigdofs.parts.mirrors import SPARE_SHARE, Mirrors
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.presence import Presence
from jigdofs.parts.recorder import RecordedParts, Recorder
from jigdofs.parts.small_files import keep_small, read_small
from jigdofs.parts.store import PartStore, cache_key
from jigdofs.plain_image import NoParts, PlainImage, open_plain
from jigdofs.prefetch.fill import FillAccount, Prefetcher
from jigdofs.prefetch.plan import FillRequest, plan
from jigdofs.sources.iso import MAGIC, MAGIC_OFFSET
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources
from jigdofs.templates import Progress
from jigdofs.wiring.foundation import (
    background,
    keep_open_files,
    keep_remembered,
    lay_foundation,
    load,
    load_template_again,
)

_log = logging.getLogger(__name__)

_FLUSH_INTERVAL_S = 5.0
_LOOK_INTERVAL_S = 30.0  # for what was evicted or fetched by others: 60,000 parts take 0.5 s of a thread
_LEARNT_AT_ONCE = 256  # files, in 2 ms of a thread
_FEW_EXTENTS = 1 << 14
"""Up to so many, a DVD's, are looked up while the mount is being made; a Blu-ray's would hold it up (0.38 s
instead of 0.25), so they wait until it is shown."""
SETTLE_S = 1.0  # so long after a reader's last part the background still stands back
_OTHERS_S = 5.0  # a reader waits for what another daemon fetches into the same cache
_NO_SOURCES = SourceOptions()
_NO_BACKGROUND = BackgroundOptions()


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can be read.

    Attributes:
        name: its leaf name, unlike that of any other image.
        identity: what tells its content from any other: the hex digest of it, or of what makes it.
        reader: reads it.
        presence: tells what of it is here.
        mtime_ns: when it was last changed.
        contents: the files inside, if it is an ISO.
        store: where its parts are had; None for an image that lies here as a whole.
    """

    name: str
    identity: str
    reader: ImageReader
    presence: Presence | PlainImage
    mtime_ns: int
    contents: ImageContents
    store: PartStore | None = None

    @property
    def present_bytes(self) -> int:
        """Bytes that can be read without fetching anything."""
        return self.presence.bytes

    @property
    def length(self) -> int:
        """Bytes of it."""
        return self.layout.length

    @property
    def layout(self) -> Layout:
        """Where its bytes come from."""
        return self.reader.layout


@dataclass(frozen=True, slots=True)
class Images:
    """All images of a mount or server.

    Attributes:
        images: in the order they were named.
        prefetcher: fetches parts before they are read.
        brake: holds it back.
        flights: what is on its way.
        mirrors: what is known of each.
        start_soon: runs a task until the end.
        upkeep: tasks that look at what is here, and write down what becomes known; not begun yet.
        complete: set once every part of all images is here.
    """

    images: tuple[Image, ...]
    prefetcher: Prefetcher
    brake: Brake
    flights: Flights
    mirrors: Mirrors
    start_soon: Callable[..., None]
    upkeep: tuple[Callable[[], Awaitable[None]], ...]
    complete: trio.Event

    def tend(self) -> None:
        """Begin what upkeep was not begun yet; called once all is shown."""
        for task in self.upkeep:
            self.start_soon(task)

    def stop(self) -> None:
        """Fail every read that waits, now and later; called before the end."""
        self.flights.stop()
        for image in self.images:
            image.contents.stop()

    async def namespace(self, *, contents: bool, single: bool = False) -> Namespace:
        """Return what there is to show.

        Args:
            contents: show the files inside ISO images, too.
            single: show the one image as the root itself.
        """
        isos = [await _is_iso(image) if contents else False for image in self.images]
        directories = directory_names([image.name for image in self.images])
        shown = []
        for image, directory, is_iso in zip(self.images, directories, isos, strict=True):
            if is_iso:
                image.contents.begin()
            shown.append(Shown(image) if is_iso is False else Shown(image, image.contents, directory))
        return Namespace(shown, single=single)

    async def fill(self, request: FillRequest, account: FillAccount) -> None:
        """Have in the cache what a request means, below every reader; raises as `plan` and `fill` do."""
        await self.prefetcher.fill(await plan(request, self.images), account)


async def _is_iso(image: Image) -> bool | None:
    """Tell whether an image is an ISO with files to show; None where a part must be fetched to find out."""
    if any(piece.part is not None for piece in image.layout.slices(MAGIC_OFFSET, len(MAGIC))):
        return None
    if await image.reader.read(MAGIC_OFFSET, len(MAGIC)) == MAGIC:
        return True
    _log.warning("%s is no ISO 9660 image: the files in it are not shown", printable(image.name))
    return False


@contextlib.asynccontextmanager
async def open_images(
    inputs: InputOptions,
    cache_options: CacheOptions | None,
    fetch_options: FetchOptions,
    read_options: ReadOptions,
    *,
    source_options: SourceOptions = _NO_SOURCES,
    background_options: BackgroundOptions = _NO_BACKGROUND,
    progress: Progress | None = None,
) -> AsyncIterator[Images]:
    """Load the images and keep everything running that reading them needs.

    Raises:
        JigdofsError: an input cannot be had or is malformed.
    """
    async with contextlib.AsyncExitStack() as stack:
        house = await lay_foundation(stack, cache_options, fetch_options)
        templates: list[int] = []  # open descriptors of those that had to be had anew
        stack.callback(_close_all, templates)
        plain, described = await _plain_images(stack, inputs)
        loaded = await load(stack, house, described, fetch_options, progress)
        recorder = await stack.enter_async_context(_recorder(background_options))
        open_files = keep_open_files(cache_options)
        stack.callback(open_files.close)  # after the flights, which may still land
        nursery = await stack.enter_async_context(background())
        flights = Flights(nursery, SETTLE_S)
        others_s = min(_OTHERS_S, read_options.timeout_s / 4)
        objects = ObjectStore(house.cache, flights, open_files, house.fallbacks, others_s)
        mirrors = Mirrors(fetch_options.connections, trio.current_time)
        brake = Brake(flights, trio.current_time, background_options.max_bytes_per_s)
        acquirer = Acquirer(house.fetcher, mirrors, _within(read_options, fetch_options), brake)
        local = None
        if source_options.paths:
            remembered = await stack.enter_async_context(keep_remembered(cache_options))
            local = LocalParts(_sources(source_options, remembered))
            lengths = {part.length for image in loaded for _, part in image.layout.parts()}
            nursery.start_soon(local.search, lengths)

        upkeep: list[Callable[[], Awaitable[None]]] = []

        def contents(name: str, key: str, reader: ImageReader) -> ImageContents:
            return ImageContents(
                name,
                reader,
                start_soon=nursery.start_soon,
                kept=partial(read_small, house.cache, tree_key(key)),
                keep=partial(keep_small, house.cache, tree_key(key)),
                timeout_s=read_options.timeout_s,
            )

        def from_parts(name: str, image: LoadedImage) -> Image:
            presence = Presence(image.layout, house.cache)
            locator = Locator(image.description, inputs.mirrors, image.directory)
            find = local.find if local is not None else None
            store = PartStore(objects, acquirer, locator, presence.add, find)
            renew = partial(load_template_again, house, image, inputs.image, fetch_options, templates)
            raw_data = RawData(image.template_file, image.chunks, objects, renew)
            if house.cache is not None:
                upkeep.append(partial(_learn, house.cache, raw_data.keys, image.layout))
            reader = ImageReader(
                image.layout,
                raw_data,
                store if recorder is None else RecordedParts(store, recorder, locator.names),
                timeout_s=read_options.timeout_s,
                readahead_bytes=_readahead_bytes(read_options, cache_options),
            )
            inside = contents(name, image.template_file.digest, reader)
            return Image(name, _identity(image), reader, presence, int(image.mtime_s * 1e9), inside, store)

        def from_file(name: str, image: PlainImage) -> Image:
            reader = ImageReader(
                image.layout, image, NoParts(), timeout_s=read_options.timeout_s, readahead_bytes=0
            )
            inside = contents(name, image.identity, reader)
            return Image(name, image.identity, reader, image, image.mtime_ns, inside)

        named: dict[str, Image] = {}
        for file in plain:
            name = unique_name(leaf_name(file.name) or "image", named)
            named[name] = from_file(name, file)
        for name, image in unique_names(loaded, named).items():
            named[name] = from_parts(name, image)
        complete = trio.Event()
        upkeep.append(partial(_tend, house.cache, recorder, tuple(named.values()), complete))
        if sum(len(image.layout) for image in named.values()) <= _FEW_EXTENTS:
            while upkeep:
                nursery.start_soon(upkeep.pop(0))
        width = max(1, fetch_options.connections - fetch_options.connections // SPARE_SHARE)
        yield Images(
            tuple(named.values()),
            Prefetcher(flights, house.cache, width),
            brake,
            flights,
            mirrors,
            nursery.start_soon,
            tuple(upkeep),
            complete,
        )


async def _plain_images(
    stack: contextlib.AsyncExitStack, inputs: InputOptions
) -> tuple[list[PlainImage], InputOptions]:
    """Open those sources that are images themselves; return them, and the inputs without them."""
    plain: list[PlainImage] = []
    rest: list[str] = []
    for source in inputs.sources:
        image = await trio.to_thread.run_sync(open_plain, source)
        if image is None:
            rest.append(source)
        else:
            stack.callback(image.close)
            plain.append(image)
    return plain, replace(inputs, sources=tuple(rest))


@contextlib.asynccontextmanager
async def _recorder(options: BackgroundOptions) -> AsyncIterator[Recorder | None]:
    """Have the list open that --record asks for, and write it to its end."""
    recorder = None if options.record is None else Recorder(options.record)
    try:
        yield recorder
    finally:
        if recorder is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(recorder.close)


def _within(read: ReadOptions, fetch: FetchOptions) -> FetchOptions:
    """Have all slow locations of a part together leave a read the time to ask a good one."""
    return replace(fetch, patience_s=min(fetch.patience_s, read.timeout_s / 2))


def _close_all(opened: Iterable[int]) -> None:
    for fd in opened:
        os.close(fd)


def _identity(image: LoadedImage) -> str:
    """Return the strongest checksum that the template gives of the whole, else its own."""
    return max((info.checksum.hex for info in image.infos), key=len, default=image.template_file.digest)


def tree_key(key: str) -> str:
    """Name the index of an image's files in the cache, given what decides its content."""
    return "tree-" + hashlib.sha256(MAGIC_OF_TREES + key.encode()).hexdigest()


def _sources(options: SourceOptions, remembered: Remembered | None) -> Sources:
    return Sources(options.paths, remembered=remembered, report=_log.warning, besides=options.avoid)


def _readahead_bytes(read: ReadOptions, cache: CacheOptions | None) -> int:
    """Never fetch so far ahead that a small cache loses it again before it is read."""
    if cache is None or cache.max_bytes is None:
        return read.readahead_bytes
    return min(read.readahead_bytes, cache.max_bytes // 4)


async def _learn(cache: Cache, raw_keys: Iterable[str], layout: Layout) -> None:
    """Look up what is known of the files that an image is made of, so that they are opened at once."""
    keys = itertools.chain(raw_keys, (cache_key(part) for _, part in layout.parts()))
    while some := list(itertools.islice(keys, _LEARNT_AT_ONCE)):
        await trio.to_thread.run_sync(cache.learn, some)


async def _tend(
    cache: Cache | None, recorder: Recorder | None, images: tuple[Image, ...], complete: trio.Event
) -> None:
    """Count what is present, and write down now and then what cache and recorder noted."""
    for image in images:
        if isinstance(image.presence, Presence):
            await trio.to_thread.run_sync(image.presence.count)
    await _tell_if_all_is_here(images, complete)
    looked_at = trio.current_time()
    while cache is not None or recorder is not None:
        await trio.sleep(_FLUSH_INTERVAL_S)
        if cache is not None:
            await trio.to_thread.run_sync(cache.flush)
        if recorder is not None:
            await trio.to_thread.run_sync(recorder.flush)
        await _tell_if_all_is_here(images, complete)
        if trio.current_time() - looked_at >= _LOOK_INTERVAL_S:
            await _look_again(images)
            looked_at = trio.current_time()


async def _tell_if_all_is_here(images: tuple[Image, ...], complete: trio.Event) -> None:
    if not complete.is_set() and _all_is_here(images):
        await _look_again(images)  # something may have been evicted meanwhile
        if _all_is_here(images):
            complete.set()


def _all_is_here(images: tuple[Image, ...]) -> bool:
    return all(image.present_bytes == image.layout.length for image in images)


async def _look_again(images: tuple[Image, ...]) -> None:
    for image in images:
        if isinstance(image.presence, Presence):
            await trio.to_thread.run_sync(image.presence.count_again)
