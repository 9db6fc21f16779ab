"""`jigdofs info`: what is in a .jigdo, and what of it is here already."""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from jigdofs.check_urls import UrlReport
from jigdofs.cli import options
from jigdofs.cli.json_text import json_text
from jigdofs.cli.parser import Parser
from jigdofs.cli.url_report import ask_all, line, told
from jigdofs.config import CacheOptions
from jigdofs.errors import EXIT_OK, EXIT_UNAVAILABLE, JigdofsError, leaf_of
from jigdofs.fetch.url import without_credentials
from jigdofs.format.part import Part
from jigdofs.image.layout import Layout
from jigdofs.load import LoadedImage
from jigdofs.parts.cache import Cache
from jigdofs.parts.locations import Locator
from jigdofs.parts.presence import present_bytes

_PARTS_AT_ONCE = 1 << 14
_EPILOG = """\
Fetches the .jigdo and its template if need be, and no part. With --json, sizes are in bytes.
With --check-urls every location of every part is asked whether the part is there, with the right
length; the exit code is 1 if one is dead.
"""


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = _EPILOG
    parser.add_argument("sources", nargs="+", metavar="JIGDO", help="path or URL of a .jigdo file")
    parser.add_argument("--json", action="store_true", help="print one JSON array, an object per image")
    parser.add_argument(
        "--check-urls", action="store_true", help="ask all locations of all parts, and tell the dead ones"
    )
    options.add_config(parser)
    options.add_input(parser)
    parser.set_defaults(image="all")
    options.add_cache(parser)
    options.add_fetch(parser)


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What there is to say about one image; every size is in bytes, the share of 1; None is not asked for."""

    name: str
    jigdo: str
    size: int
    checksums: dict[str, str]
    template: str
    template_size: int
    template_version: str
    generator: str
    parts: int
    distinct_parts: int
    bytes_in_parts: int
    share_in_parts: float
    bytes_in_template: int
    cached_parts: int
    cached_bytes: int
    parts_without_location: int
    labels: dict[str, int]
    mirrors: dict[str, int]
    urls: UrlReport | None


def run(arguments: argparse.Namespace) -> int:
    """Load the images and print what is known of them."""
    import trio

    from jigdofs import logs

    logs.to_stderr(logging.WARNING)
    reports: list[ImageReport] = []
    code = EXIT_OK
    for source in arguments.sources:
        try:
            reports += trio.run(_collect, arguments, source, strict_exception_groups=True)
        except (JigdofsError, BaseExceptionGroup) as error:
            leaf = leaf_of(error)
            if not isinstance(leaf, JigdofsError):
                raise
            print(f"jigdofs: {leaf}", file=sys.stderr)
            code = leaf.exit_code
    if code == EXIT_OK and any(report.urls is not None and report.urls.dead_locations for report in reports):
        code = EXIT_UNAVAILABLE
    if arguments.json:
        print(json_text([_as_dict(report) for report in reports]))
    elif reports:
        print("\n\n".join(map(_text, reports)))
    return code


async def _collect(arguments: argparse.Namespace, source: str) -> list[ImageReport]:
    from jigdofs.cli.progress import template_progress
    from jigdofs.wiring.foundation import load_images, open_fetcher

    inputs = options.input_options(arguments, [source])
    cache_options: CacheOptions | None = options.cache_options(arguments)
    fetch = options.fetch_options(arguments)
    async with contextlib.AsyncExitStack() as stack:
        with template_progress() as progress:
            images, cache = await stack.enter_async_context(
                load_images(inputs, cache_options, fetch, progress)
            )
        fetcher = await stack.enter_async_context(open_fetcher(fetch))
        reports = []
        for image in images:
            locator = Locator(image.description, inputs.mirrors, image.directory)
            urls = None
            if arguments.check_urls:
                urls = await ask_all(image.layout, locator, image.source, fetcher, fetch)
            reports.append(_report(image, locator, cache, urls))
        return reports


def _report(image: LoadedImage, locator: Locator, cache: Cache | None, urls: UrlReport | None) -> ImageReport:
    layout = image.layout
    by_mirror: collections.Counter[str] = collections.Counter()
    distinct = nowhere = cached = 0
    parts = _distinct(layout)
    while some := list(itertools.islice(parts, _PARTS_AT_ONCE)):
        distinct += len(some)
        for part in some:
            found = dict.fromkeys(location.mirror for location in locator.locations(part.checksum))
            by_mirror.update(found.keys())
            nowhere += not found
        cached += _cached(some, cache)
    present = present_bytes((part for _, part in layout.parts()), cache.present) if cache is not None else 0
    in_parts = layout.length - layout.raw_length
    sums = dict(image.section.image_sums)
    sums |= {info.checksum.algorithm.short_name: info.checksum.hex for info in image.infos}
    return ImageReport(
        name=image.name,
        jigdo=without_credentials(image.source),
        size=layout.length,
        checksums=dict(sorted(sums.items())),
        template=image.template_file.name,
        template_size=os.fstat(image.template_file.fd).st_size,
        template_version=image.template_version,
        generator=image.description.generator,
        parts=sum(1 for _ in layout.parts()),
        distinct_parts=distinct,
        bytes_in_parts=in_parts,
        share_in_parts=round(in_parts / layout.length, 4) if layout.length else 0.0,
        bytes_in_template=layout.raw_length,
        cached_parts=cached,
        cached_bytes=present,
        parts_without_location=nowhere,
        labels=image.description.labels(),
        mirrors=dict(by_mirror),
        urls=urls,
    )


def _distinct(layout: Layout) -> Iterator[Part]:
    """Yield each part once; 300,000 take 25 MB this way, as a dict of them 100."""
    seen: set[bytes] = set()
    for _, part in layout.parts():
        digest = part.checksum.digest
        if digest not in seen:
            seen.add(digest)
            yield part


def _cached(parts: list[Part], cache: Cache | None) -> int:
    from jigdofs.parts.store import cache_key

    return 0 if cache is None else len(cache.present(map(cache_key, parts)))


def _as_dict(report: ImageReport) -> dict[str, Any]:
    """Return what JSON takes; locations only where they were asked."""
    values = asdict(report)
    if report.urls is None:
        del values["urls"]
    return values


def _text(report: ImageReport) -> str:
    """Write a report for people."""
    share = 100 * report.cached_bytes / report.bytes_in_parts if report.bytes_in_parts else 100
    occurrences = f" in {report.parts} places" if report.parts != report.distinct_parts else ""
    in_parts = f"{_bytes(report.bytes_in_parts)} of the image ({100 * report.share_in_parts:.2f} %)"
    template = (
        f"{report.template}, {_bytes(report.template_size)}, format {report.template_version},"
        f" holds {_bytes(report.bytes_in_template)} of the image"
    )
    lines = [
        ("image", report.name),
        ("size", f"{_bytes(report.size)} ({report.size} bytes)"),
        *((name, digest) for name, digest in report.checksums.items()),
        ("jigdo", report.jigdo + (f", written by {report.generator}" if report.generator else "")),
        ("template", template),
        ("parts", f"{report.distinct_parts}{occurrences}, {in_parts}"),
        ("cached", f"{report.cached_parts} parts, {_bytes(report.cached_bytes)} ({share:.0f} %)"),
        *(("label", f"{label} ({count} parts)") for label, count in report.labels.items()),
        *(("mirror", f"{mirror} ({count} parts)") for mirror, count in report.mirrors.items()),
    ]
    if report.parts_without_location:
        lines.append(("nowhere", f"{report.parts_without_location} parts; name a --mirror for their label"))
    if report.urls is not None:
        lines += told(report.urls)
    return "\n".join(map(line, lines))


def _bytes(number: int) -> str:
    """Write a size for people, in powers of 1024."""
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{number} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
