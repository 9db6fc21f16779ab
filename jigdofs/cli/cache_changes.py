"""`jigdofs cache gc`, `verify` and `clear`: change a cache beside the daemons that use it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

from jigdofs.cli import cache_report as report
from jigdofs.cli.cache_images import find, shown_name
from jigdofs.cli.cache_opened import opened
from jigdofs.cli.cache_views import count_all
from jigdofs.cli.json_text import json_text
from jigdofs.cli.progress import showing
from jigdofs.config import CacheOptions
from jigdofs.errors import (
    EXIT_INTERRUPTED,
    EXIT_MISMATCH,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    UsageError,
    printable,
)
from jigdofs.parts import tidying
from jigdofs.parts.holdings import count
from jigdofs.parts.rot import Finding, Inspector, Verdict
from jigdofs.parts.shelf import Leftover, Shelf, looking_at
from jigdofs.size_text import size_text
from jigdofs.wiring.foundation import least_free_bytes

# -- gc ----------------------------------------------------------------------------------------------


def collect_garbage(arguments: argparse.Namespace, options: CacheOptions) -> int:
    """Bring the cache below its limit, and remove what nobody will use; 1 if it is still larger."""
    if arguments.max_size is not None:
        options = dataclasses.replace(options, max_bytes=arguments.max_size, min_free_bytes=0)
    since_ns = 0 if arguments.older_than is None else time.time_ns() - int(arguments.older_than * 1e9)
    with looking_at(options.directory) as shelf:
        if shelf is None:
            _tell(arguments, tidying.Freed(), [], 0)
            return EXIT_OK
        left = shelf.leftovers()
        if arguments.dry_run:
            freed, forgotten = _would_collect(shelf, options, since_ns)
        else:
            with opened(options) as cache:
                _remove_leftovers(shelf, left)
                files = shelf.files()
                freed = tidying.collect(
                    files,
                    cache.manifests.pinned(),
                    tidying.Removing(cache, spares_pinned=True),
                    excess_bytes=cache.excess(sum(file.size for file in files)),
                    unused_since_ns=since_ns,
                )
                forgotten = len(tidying.forget(cache.manifests, _of_nothing(shelf)))
                forgotten += len(tidying.forget(cache.manifests, cache.manifests.damaged()))
        _tell(arguments, freed, left, forgotten)
        return EXIT_UNAVAILABLE if freed.excess_bytes else EXIT_OK


def _would_collect(shelf: Shelf, options: CacheOptions, since_ns: int) -> tuple[tidying.Freed, int]:
    """Find out what would go, and how many images would be forgotten."""
    files = shelf.files()
    gone: set[str] = set()
    used = sum(file.size for file in files)
    limit = used + shelf.free_bytes() - least_free_bytes(options)
    limit = limit if options.max_bytes is None else min(limit, options.max_bytes)

    def remove(some: tidying.Files) -> tidying.Files:
        going = shelf.unlocked(some)
        gone.update(file.key for file in going)
        return going

    freed = tidying.collect(
        files,
        shelf.manifests.pinned(),
        remove,
        excess_bytes=used - limit,
        unused_since_ns=since_ns,
    )
    left = [file for file in files if file.key not in gone]
    holdings = count(left, shelf.manifests.all())
    empty = [one for one in holdings.images if not (one.keys or one.image.pinned or one.image.in_use)]
    return freed, len(empty) + len(shelf.manifests.damaged())


def _of_nothing(shelf: Shelf) -> list[str]:
    """Return the ids of those images of which no file is here."""
    return [one.image.id for one in count_all(shelf).images if not one.keys]


def _remove_leftovers(shelf: Shelf, left: list[Leftover]) -> None:
    for one in left:
        shelf.remove(one)


def _tell(arguments: argparse.Namespace, freed: tidying.Freed, left: list[Leftover], forgotten: int) -> None:
    values = report.freed_values(
        freed,
        leftovers=len(left),
        leftover_bytes=sum(one.size for one in left),
        forgotten=forgotten,
        dry_run=bool(arguments.dry_run),
    )
    print(json_text(values) if arguments.json else report.freed_text(values))


# -- verify ------------------------------------------------------------------------------------------


def verify(arguments: argparse.Namespace, options: CacheOptions) -> int:
    """Compare every file with its checksum; 2 if one is wrong."""
    counts = dict.fromkeys(Verdict, 0)
    wrong: list[tuple[Finding, bool]] = []
    damaged: list[str] = []
    with looking_at(options.directory) as shelf:
        if shelf is not None:
            files = shelf.files()
            total = sum(file.size for file in files)
            with opened(options) as cache:
                inspector = Inspector(shelf, cache)
                with showing("verify", total, lambda: inspector.done_bytes, quiet=arguments.quiet):
                    for finding in inspector.inspect(files):
                        counts[finding.verdict] += 1
                        if finding.verdict is Verdict.WRONG:
                            wrong.append((finding, not arguments.keep and inspector.remove(finding)))
                damaged = cache.manifests.damaged()
                if not arguments.keep:
                    tidying.forget(cache.manifests, damaged)
            done = inspector.done_bytes
        else:
            done = 0
    values = {
        "bytes": done,
        "right": counts[Verdict.RIGHT],
        "wrong": [
            {"key": one.file.key, "size": one.file.size, "reason": one.reason, "removed": removed}
            for one, removed in wrong
        ],
        "unknown": counts[Verdict.UNKNOWN],
        "damaged_manifests": damaged,
    }
    if arguments.json:
        print(json_text(values))
    else:
        for one, removed in wrong:
            then = "removed" if removed else "left where it is"
            print(f"{printable(one.file.key)}: {one.reason}; {then}")
        for image in damaged:
            print(f"images/{image}: what is known of this image is damaged")
        print(
            f"{counts[Verdict.RIGHT]} files are right ({size_text(done)} read), {len(wrong)} wrong"
            + (f", {counts[Verdict.UNKNOWN]} nobody can tell" if counts[Verdict.UNKNOWN] else "")
        )
    return EXIT_MISMATCH if wrong or damaged else EXIT_OK


# -- clear -------------------------------------------------------------------------------------------


def clear(arguments: argparse.Namespace, options: CacheOptions) -> int:
    """Remove everything, or what is of some images alone."""
    with looking_at(options.directory) as shelf:
        holdings = count_all(shelf)
        known = [*(one.image for one in holdings.images), *holdings.lost]
        chosen = {one.id: one for name in arguments.images for one in find(name, known, options.directory)}
        for image in chosen.values():
            if image.pinned and not arguments.pinned:
                raise UsageError(f"{shown_name(image)} is pinned; unpin it first, or say --pinned")
        if shelf is None:
            _tell(arguments, tidying.Freed(), [], 0)
            return EXIT_OK
        files = shelf.files()
        if arguments.images:
            keys = holdings.only(chosen)
            files = [file for file in files if file.key in keys]
        if not arguments.yes and not _agreed(
            options, [shown_name(image) for image in chosen.values()], files
        ):
            return EXIT_INTERRUPTED
        left = [] if arguments.images else shelf.leftovers()
        with opened(dataclasses.replace(options, max_bytes=None, min_free_bytes=0)) as cache:
            ids = list(chosen) or [image.id for image in known]
            for unpinned in ids if arguments.pinned else ():
                cache.manifests.unpin(unpinned)
            _remove_leftovers(shelf, left)
            pinned = cache.manifests.pinned()
            freed = tidying.clear(files, pinned, tidying.Removing(cache, spares_pinned=True))
            forgotten = len(tidying.forget(cache.manifests, ids))
            if not arguments.images:
                forgotten += len(tidying.forget(cache.manifests, cache.manifests.damaged()))
        _tell(arguments, freed, left, forgotten)
    return EXIT_OK


def _agreed(options: CacheOptions, names: list[str], files: tidying.Files) -> bool:
    """Ask; raise `UsageError` where nobody could answer."""
    if not sys.stdin.isatty():
        raise UsageError("`cache clear' removes for good: say --yes")
    what = f"what is of {', '.join(names)} alone" if names else "everything that is neither open nor pinned"
    size = size_text(sum(file.size for file in files))
    print(f"Remove {what} from {options.directory} ({size})? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
