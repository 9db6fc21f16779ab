"""Ask whether parts are where a .jigdo says, and tell what came out: for `info` and `make-template`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from jigdofs.cli import jigdo_file
from jigdofs.cli.progress import counting
from jigdofs.config import FetchOptions
from jigdofs.errors import EXIT_OK, EXIT_UNAVAILABLE, JigdofsError, leaf_of, printable
from jigdofs.fetch import url as urls
from jigdofs.format import jigdo, jigdo_limits, jigdo_reader
from jigdofs.format.label_growth import check_labels
from jigdofs.format.template_reader import read_template
from jigdofs.image.layout import Layout
from jigdofs.in_thread import GIVE_UP
from jigdofs.parts.locations import Locator

if TYPE_CHECKING:
    from jigdofs.check_urls import UrlReport
    from jigdofs.fetch.fetcher import Fetcher

_NO_MIRRORS: Mapping[str, tuple[str, ...]] = {}
_FETCH = FetchOptions()


def ask_files(
    jigdo_name: str,
    template_name: str,
    *,
    options: FetchOptions = _FETCH,
    mirrors: Mapping[str, tuple[str, ...]] = _NO_MIRRORS,
    quiet: bool = False,
) -> UrlReport:
    """Ask all locations of the parts of an image whose .jigdo and .template lie on disk.

    Args:
        jigdo_name: path of the .jigdo; its includes are not followed.
        template_name: path of the .template.
        options: how to ask.
        mirrors: label -> URL prefixes or directories to be asked as well.
        quiet: show no progress.

    Raises:
        JigdofsError: one of the files cannot be read or is malformed.
    """
    import trio

    description = _read_jigdo(jigdo_name)
    with jigdo_file.opened(template_name) as file:
        layout = Layout.of(read_template(file, template_name).columns)
    locator = Locator(description, mirrors, os.getcwd())

    async def ask() -> UrlReport:
        from jigdofs.wiring.foundation import open_fetcher

        async with open_fetcher(options) as fetcher:
            return await ask_all(layout, locator, description.source, fetcher, options, quiet=quiet)

    try:
        return trio.run(ask, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        leaf = leaf_of(group)
        if isinstance(leaf, JigdofsError):
            raise leaf from group
        raise


async def ask_all(
    layout: Layout,
    locator: Locator,
    source: str,
    fetcher: Fetcher,
    options: FetchOptions,
    *,
    quiet: bool = False,
) -> UrlReport:
    """Ask all locations of the parts of an image, with a bar on a terminal.

    Args:
        layout: of the image.
        locator: says where parts may be.
        source: absolute path or URL of the .jigdo.
        fetcher: asks.
        options: how.
        quiet: show no progress.
    """
    import trio

    from jigdofs.check_urls import UrlCheck

    directories = () if urls.is_http(source) else (os.getcwd(), _directory(source))
    check = UrlCheck(layout.distinct_parts().values(), locator, fetcher, options, directories)
    total = await trio.to_thread.run_sync(check.count, **GIVE_UP)
    with counting("asking", total, lambda: check.judged, quiet=quiet):
        return await check.run()


def exit_code(report: UrlReport) -> int:
    """Return 1 if a location is dead."""
    return EXIT_UNAVAILABLE if report.dead_locations else EXIT_OK


def told(report: UrlReport) -> Iterator[tuple[str, str]]:
    """Yield the account as pairs of a word and a text: what is dead, then the sum of it all."""
    for dead in report.dead:
        yield "dead", f"{dead.url}: {dead.reason} ({dead.part})"
    for host in report.unreachable:
        yield "dead", f"{host.host}: {host.reason} ({_counted(host.locations, 'location')} there)"
    text = f"{_counted(report.locations, 'location')} of {_counted(report.parts, 'part')} asked"
    text += f", {report.alive} alive, {report.dead_locations} dead"
    if report.parts_without_living_location:
        text += f"; {_counted(len(report.parts_without_living_location), 'part')} without a living location"
    if report.parts_without_location:
        text += f"; {_counted(len(report.parts_without_location), 'part')} without any location"
    yield "urls", text


def line(pair: tuple[str, str]) -> str:
    """Write a word and its text as a line of `info`."""
    name, text = pair
    return f"{name + ':':<10}{printable(text)}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _directory(source: str) -> str:
    return os.path.dirname(os.path.abspath(source))


def _read_jigdo(name: str) -> jigdo.JigdoFile:
    with jigdo_file.opened(name) as file:
        pieces = jigdo_reader.parse(file.read(jigdo_limits.MAX_BYTES + 1), os.path.abspath(name))
    for piece in pieces:
        if isinstance(piece, jigdo.Include):
            jigdo_file.warn(f"{name}:{piece.line}: [Include {piece.url}] is not followed here")
    description = jigdo.merge(piece for piece in pieces if isinstance(piece, jigdo.JigdoFile))
    check_labels(description.servers)
    return description
