"""What is done for images all the time: count what is here, write down what became known."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import trio

from jigdofs.image.layout import Layout
from jigdofs.parts.cache import Cache
from jigdofs.parts.presence import Presence
from jigdofs.parts.recorder import Recorder
from jigdofs.parts.store import cache_key
from jigdofs.wiring.image import Image

_FLUSH_INTERVAL_S = 5.0
_LOOK_SHARE = 50
"""A fiftieth of the time goes into looks for what was evicted, or fetched by others: 60,000 parts take 0.5 s
of a thread. Where a quota is smaller than its image, all of that would soon seem to be here without them."""
_LEARNT_AT_ONCE = 256  # files, in 2 ms of a thread
_FEW_EXTENTS = 1 << 14
"""Up to so many, a DVD's, are looked up while the mount is being made; a Blu-ray's would hold it up (0.38 s
instead of 0.25), so they wait until it is shown."""

Task = Callable[[], Awaitable[None]]


def upkeep(
    cache: Cache | None, recorder: Recorder | None, images: Sequence[Image], complete: trio.Event
) -> list[Task]:
    """Return the tasks, none begun.

    Args:
        cache: where parts are kept.
        recorder: writes down which parts are touched.
        images: all of them.
        complete: set once every part of all images is here.
    """
    parted = [] if cache is None else [image for image in images if image.store is not None]
    tasks: list[Task] = [partial(_learn, cache, image.raw_keys, image.layout) for image in parted]
    return [*tasks, partial(_tend, cache, recorder, images, complete)]


def may_begin_at_once(images: Iterable[Image]) -> bool:
    """Tell whether upkeep of these does not hold up the mount that is being made."""
    return sum(len(image.layout) for image in images) <= _FEW_EXTENTS


async def _learn(cache: Cache | None, raw_keys: Iterable[str], layout: Layout) -> None:
    """Look up what is known of the files that an image is made of, so that they are opened at once."""
    assert cache is not None
    keys = itertools.chain(raw_keys, (cache_key(part) for _, part in layout.parts()))
    while some := list(itertools.islice(keys, _LEARNT_AT_ONCE)):
        await trio.to_thread.run_sync(cache.learn, some)


async def _tend(
    cache: Cache | None, recorder: Recorder | None, images: Sequence[Image], complete: trio.Event
) -> None:
    """Count what is present, and write down now and then what cache and recorder noted."""
    if cache is not None:
        await trio.to_thread.run_sync(cache.take_stock)
    for image in images:
        if isinstance(image.presence, Presence):
            await trio.to_thread.run_sync(image.presence.count)
    await _tell_if_all_is_here(images, complete)
    look_at = trio.current_time()
    while True:
        await trio.sleep(_FLUSH_INTERVAL_S)
        if cache is not None:
            await trio.to_thread.run_sync(cache.flush)
            await trio.to_thread.run_sync(cache.take_stock)
        if recorder is not None:
            await trio.to_thread.run_sync(recorder.flush)
        await _tell_if_all_is_here(images, complete)
        if (began := trio.current_time()) >= look_at:
            await _look_again(images)
            look_at = trio.current_time() + _LOOK_SHARE * (trio.current_time() - began)


async def _tell_if_all_is_here(images: Sequence[Image], complete: trio.Event) -> None:
    if not complete.is_set() and _all_is_here(images):
        await _look_again(images)  # something may have been evicted meanwhile
        if _all_is_here(images):
            complete.set()


def _all_is_here(images: Sequence[Image]) -> bool:
    return all(image.present_bytes == image.layout.length for image in images)


async def _look_again(images: Sequence[Image]) -> None:
    for image in images:
        if isinstance(image.presence, Presence):
            await trio.to_thread.run_sync(image.presence.count_again)
