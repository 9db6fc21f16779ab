"""What downloads need, whichever .jigdo they are of."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import trio

from jigdofs.build.account import Account
from jigdofs.config import CacheOptions, FetchOptions
from jigdofs.download import Supply
from jigdofs.load import LoadedImage, Loader
from jigdofs.parts.acquire import Acquirer
from jigdofs.parts.flights import Flights
from jigdofs.parts.locations import Locator
from jigdofs.parts.mirrors import Mirrors
from jigdofs.parts.objects import ObjectStore
from jigdofs.parts.store import PartStore
from jigdofs.sources.remembered import Remembered
from jigdofs.sources.sources import Sources
from jigdofs.templates import Progress
from jigdofs.wiring.foundation import (
    background,
    keep_open_files,
    keep_remembered,
    lay_foundation,
    make_loader,
)
from jigdofs.wiring.noted_images import note_image


@dataclass(frozen=True, slots=True)
class Workshop:
    """What downloads need, whichever .jigdo they are of; connections and what is known of mirrors last.

    Attributes:
        loader: loads a .jigdo and its templates; the caller closes these.
        mirrors: how each did.
        remembered: what is known of local files, or None.
        labels: for which the user named mirrors for this run.
        note: has the cache know an image that was loaded; blocks.
        supply: says where the parts of an image come from, given its sources and its account.
    """

    loader: Loader
    mirrors: Mirrors
    remembered: Remembered | None
    labels: frozenset[str]
    note: Callable[[LoadedImage], None]
    supply: Callable[[LoadedImage, Sources | None, Account], Supply]


@contextlib.asynccontextmanager
async def open_workshop(
    user_mirrors: Mapping[str, tuple[str, ...]],
    labels: frozenset[str],
    cache_options: CacheOptions | None,
    fetch_options: FetchOptions,
    *,
    keep_parts: bool,
    progress: Progress | None = None,
) -> AsyncIterator[Workshop]:
    """Keep everything running that downloads need.

    Args:
        user_mirrors: label -> URL prefixes or directories that the user prefers.
        labels: those of them that are meant for the images of this run.
        cache_options: where verified parts may be already.
        fetch_options: how transfers behave.
        keep_parts: fetch into the cache, and copy from there.
        progress: told how templates come in.

    Raises:
        JigdofsError: the cache directory is unsafe.
    """
    async with contextlib.AsyncExitStack() as stack:
        house = await lay_foundation(stack, cache_options, fetch_options)
        mirrors = Mirrors(fetch_options.connections, trio.current_time)
        acquirer = Acquirer(house.fetcher, mirrors, fetch_options)
        remembered = await stack.enter_async_context(keep_remembered(cache_options))
        objects = None
        if keep_parts and house.cache is not None:
            open_files = keep_open_files(cache_options)
            stack.callback(open_files.close)
            nursery = await stack.enter_async_context(background())
            objects = ObjectStore(house.cache, Flights(nursery), open_files, house.fallbacks)

        def supply(image: LoadedImage, sources: Sources | None, account: Account) -> Supply:
            locator = Locator(image.description, user_mirrors, image.directory)
            store = None
            if objects is not None:
                store = PartStore(objects, acquirer, locator, lambda part, **_: account.fetch(part.length))
            return Supply(locator, acquirer, fetch_options.connections, house.cache, sources, store)

        def note(image: LoadedImage) -> None:
            if house.cache is not None:
                note_image(house.cache, image.name, image)

        loader = make_loader(house, fetch_options, progress)
        yield Workshop(loader, mirrors, remembered, labels, note, supply)
