"""Images that can be read, and everything that keeps running for it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import trio

from jigdofs.config import (
    BackgroundOptions,
    CacheOptions,
    FetchOptions,
    InputOptions,
    LiveOptions,
    ReadOptions,
    SourceOptions,
)
from jigdofs.contents.namespace import Namespace, Shown
from jigdofs.errors import printable
from jigdofs.load import unique_names
from jigdofs.local_parts import LocalParts
from jigdofs.names import directory_names, leaf_name, unique_name
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.brake import Brake
from jigdofs.parts.cache import Cache
from jigdofs.parts.flights import Flights
from jigdofs.parts.mirrors import Mirrors
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.recorder import Recorder
from jigdofs.plain_image import PlainImage, open_plain
from jigdofs.prefetch.fill import FillAccount, Prefetcher
from jigdofs.prefetch.plan import FillRequest, plan
from jigdofs.sources.iso import MAGIC, MAGIC_OFFSET
from jigdofs.sources.sources import Sources
from jigdofs.templates import Progress
from jigdofs.wiring.adjusting import Adjustable, background_width, within
from jigdofs.wiring.foundation import (
    background,
    keep_open_files,
    keep_remembered,
    lay_foundation,
    load,
)
from jigdofs.wiring.image import Image
from jigdofs.wiring.image_maker import ImageMaker
from jigdofs.wiring.noted_images import note_in_thread
from jigdofs.wiring.upkeep import Task, may_begin_at_once, upkeep

_log = logging.getLogger(__name__)

SETTLE_S = 1.0  # so long after a reader's last part the background still stands back
_OTHERS_S = 5.0  # a reader waits for what another daemon fetches into the same cache
_NO_SOURCES = SourceOptions()
_NO_BACKGROUND = BackgroundOptions()


@dataclass(frozen=True, slots=True)
class Images:
    """All images of a mount or server.

    Attributes:
        images: in the order they were named.
        prefetcher: fetches parts before they are read.
        brake: holds it back.
        flights: what is on its way.
        mirrors: what is known of each.
        cache: where parts are kept; None for nowhere.
        without_cache: why there is none.
        start_soon: runs a task until the end.
        upkeep: tasks that look at what is here, and write down what becomes known; not begun yet.
        complete: set once every part of all images is here.
        adjustable: all that follows options which may change.
    """

    images: tuple[Image, ...]
    prefetcher: Prefetcher
    brake: Brake
    flights: Flights
    mirrors: Mirrors
    cache: Cache | None
    without_cache: str
    start_soon: Callable[..., None]
    upkeep: tuple[Task, ...]
    complete: trio.Event
    adjustable: Adjustable

    async def adjust(self, live: LiveOptions, changed: frozenset[str]) -> None:
        """Follow other options from now on; what is on its way goes on as it began."""
        await self.adjustable.apply(live, changed)

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
        acquirer = Acquirer(house.fetcher, mirrors, within(read_options, fetch_options), brake)
        local = await _local_parts(stack, source_options, cache_options)
        if local is not None:
            lengths = {part.length for image in loaded for _, part in image.layout.parts()}
            nursery.start_soon(local.search, lengths)
        maker = ImageMaker(
            house=house,
            start_soon=nursery.start_soon,
            objects=objects,
            acquirer=acquirer,
            recorder=recorder,
            find=None if local is None else local.find,
            inputs=inputs,
            cache_options=cache_options,
            fetch_options=fetch_options,
            read_options=read_options,
            renewed=templates,
        )
        named: dict[str, Image] = {}
        for file in plain:
            name = unique_name(leaf_name(file.name) or "image", named)
            named[name] = maker.from_file(name, file)
        described_images = unique_names(loaded, named)
        named |= {name: maker.from_parts(name, image) for name, image in described_images.items()}
        images = tuple(named.values())
        complete = trio.Event()
        tasks = upkeep(house.cache, recorder, images, complete)
        if may_begin_at_once(images):
            while tasks:
                nursery.start_soon(tasks.pop(0))
        if house.cache is not None:  # no mount waits for that
            tasks += [partial(note_in_thread, house.cache, *named) for named in described_images.items()]
        prefetcher = Prefetcher(flights, house.cache, background_width(fetch_options))
        adjustable = Adjustable(
            house.fetcher,
            acquirer,
            mirrors,
            brake,
            prefetcher,
            images,
            open_files,
            house.cache,
            cache_options,
        )
        yield Images(
            images,
            prefetcher,
            brake,
            flights,
            mirrors,
            house.cache,
            house.without_cache,
            nursery.start_soon,
            tuple(tasks),
            complete,
            adjustable,
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


def _close_all(opened: Iterable[int]) -> None:
    for fd in opened:
        os.close(fd)


async def _local_parts(
    stack: contextlib.AsyncExitStack, options: SourceOptions, cache_options: CacheOptions | None
) -> LocalParts | None:
    """Have what finds parts among local files, or None where none were named; not searched yet."""
    if not options.paths:
        return None
    remembered = await stack.enter_async_context(keep_remembered(cache_options))
    return LocalParts(
        Sources(options.paths, remembered=remembered, report=_log.warning, besides=options.avoid)
    )
