"""`jigdofs cache pin` and `unpin`: what is never evicted."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from importlib import import_module

import trio

from jigdofs import __version__
from jigdofs.cli.cache_images import Unknown, find, shown_name
from jigdofs.cli.cache_opened import opened
from jigdofs.config import CacheOptions, FetchOptions, InputOptions
from jigdofs.errors import EXIT_OK, CacheError, UsageError
from jigdofs.fetch import url as urls
from jigdofs.parts.holdings import pinned_bytes
from jigdofs.parts.manifests import KnownImage
from jigdofs.parts.shelf import looking_at
from jigdofs.size_text import size_text
from jigdofs.wiring.foundation import load_images
from jigdofs.wiring.noted_images import note_image

_IMPORTED_LATE = ("jigdofs.fetch.http", "encodings.idna")


def import_for(names: Iterable[str]) -> None:
    """Import what loading these takes, as long as we may read it."""
    if any(map(urls.is_http, names)):
        for module in _IMPORTED_LATE:
            import_module(module)


def pin(arguments: argparse.Namespace, options: CacheOptions) -> int:
    """Pin images, unless all that is pinned would be more than the cache may have."""
    chosen: dict[str, KnownImage] = {}
    for name in arguments.images:
        with looking_at(options.directory) as shelf:
            known = [] if shelf is None else list(shelf.manifests.all())
        try:
            found = find(name, known, options.directory)
        except Unknown:
            if not _is_jigdo(name):
                raise
            found = _loaded(name, options)
        for image in found:
            if image.manifest is None:
                raise CacheError(f"what is in image {image.id} is not known any more; mount it again first")
            chosen[image.id] = image
    with opened(options) as cache:
        with looking_at(options.directory) as shelf:
            sizes = {} if shelf is None else {file.key: file.size for file in shelf.files()}
        others = {image.id: image for image in cache.manifests.all() if image.pinned}
        total = pinned_bytes((others | chosen).values(), sizes)
        if options.max_bytes is not None and total > options.max_bytes:
            raise UsageError(
                f"all that is pinned would take {size_text(total)}, and the cache may have"
                f" {size_text(options.max_bytes)}; a larger --cache-max-size, for every daemon that"
                " uses it, makes room"
            )
        for image in chosen.values():
            try:
                pinned = cache.manifests.pin(image.id)
            except OSError as error:
                raise CacheError(f"{shown_name(image)} cannot be pinned: {error.strerror}") from error
            if not pinned:
                raise CacheError(f"{shown_name(image)} was forgotten just now; mount it again")
            print(f"pinned {shown_name(image)}")
    return EXIT_OK


def unpin(arguments: argparse.Namespace, options: CacheOptions) -> int:
    """Unpin images."""
    with looking_at(options.directory) as shelf:
        known = [] if shelf is None else list(shelf.manifests.all())
        found = {one.id: one for name in arguments.images for one in find(name, known, options.directory)}
        assert shelf is not None  # or none was found
        for image in found.values():
            try:
                shelf.manifests.unpin(image.id)
            except OSError as error:
                raise CacheError(f"{shown_name(image)} cannot be unpinned: {error.strerror}") from error
            print(f"unpinned {shown_name(image)}" if image.pinned else f"{shown_name(image)} was not pinned")
    return EXIT_OK


def _is_jigdo(name: str) -> bool:
    return urls.is_http(name) or name.endswith(".jigdo")


def _loaded(source: str, options: CacheOptions) -> list[KnownImage]:
    """Load a .jigdo and have the cache know its image."""

    async def load() -> list[KnownImage]:
        inputs = InputOptions((source,), {}, "first")
        fetch = FetchOptions(user_agent=f"jigdofs/{__version__}")
        async with load_images(inputs, options, fetch) as (images, cache):
            if cache is None:
                raise CacheError(f"cache {options.directory} cannot be used")
            ids = {image.template_file.digest for image in images}
            for image in images:
                await trio.to_thread.run_sync(note_image, cache, image.name, image)
            return [known for known in cache.manifests.all() if known.id in ids]

    return trio.run(load, strict_exception_groups=True)
