"""`jigdofs print-missing`: where the parts may be had that an image still lacks, for scripts to fetch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import islice

from jigdofs.cli import jigdo_file
from jigdofs.cli.parser import Parser
from jigdofs.errors import EXIT_OK, FormatError, printable
from jigdofs.format import jigdo, jigdo_limits, jigdo_reader, words
from jigdofs.format.checksum import Checksum
from jigdofs.format.template import DESC_OVERHEAD, Entry, ImageInfo, MatchedFile, read_entries
from jigdofs.format.template_reader import has_header, read_desc
from jigdofs.parts.expansion import expansions

EPILOG = """\
Nothing is printed once the image exists. Parts that are in IMAGE.tmp already are left out.
Names that are missing are deduced: of `-i x.iso' follow x.jigdo and x.template.
"""
SHOWN = ("image", "jigdo", "template", "uri")


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.epilog = "One line a part: the first of its locations.\n" + EPILOG
    jigdo_file.add_arguments(parser, shown=SHOWN)


def run(arguments: argparse.Namespace) -> int:
    """Print the first location of every missing part."""
    return print_parts(arguments, all_locations=False)


def print_parts(arguments: argparse.Namespace, *, all_locations: bool) -> int:
    """Print locations, parts in the order of their checksums, MD5 before SHA-256, as jigdo-file does."""
    options = jigdo_file.options(arguments)
    image, jigdo_name, template = jigdo_file.require_names(options.names, "image", "jigdo", "template")
    jigdo_file.warn_unused_files(options, "name the image with --image")
    for uri in arguments.uri:
        if "=" not in uri:
            jigdo_file.warn(f"--uri {uri}: is not LABEL=URL, so it is not used")
    description = _read_jigdo(jigdo_name)
    entries = _read_template(template)
    preferred = _preferred(options)
    for checksum in sorted(_missing(image, entries), key=lambda found: (len(found.digest), found.digest)):
        found = expansions(description, checksum, preferred)
        for location in found if all_locations else islice(found, 1):
            # scripts get the bytes as they are; a terminal would obey some of them
            text = printable(location) if sys.stdout.isatty() else location
            jigdo_file.write_line(text.encode("utf-8", "surrogateescape"))
        if all_locations:
            jigdo_file.write_line(b"")
    return EXIT_OK


def _preferred(options: jigdo_file.JigdoFileOptions) -> dict[str, tuple[str, ...]]:
    """Return what --uri says; its value is quoted like a line of [Servers]."""
    preferred: dict[str, tuple[str, ...]] = {}
    for label, value in options.uris:
        prefix = next(iter(words.split(_text(value))), "")
        preferred[_text(label)] = (*preferred.get(_text(label), ()), prefix)
    return preferred


def _text(argument: str) -> str:
    """Decode an argument's bytes as those of a .jigdo are."""
    return os.fsencode(argument).decode("utf-8", "surrogateescape")


def _read_jigdo(name: str) -> jigdo.JigdoFile:
    with jigdo_file.opened(name) as file:
        pieces = jigdo_reader.parse(file.read(jigdo_limits.MAX_BYTES + 1), name)
    for piece in pieces:
        if isinstance(piece, jigdo.Include):
            jigdo_file.warn(f"{name}:{piece.line}: [Include {piece.url}] is not followed here")
    return jigdo.merge(piece for piece in pieces if isinstance(piece, jigdo.JigdoFile))


def _read_template(name: str) -> list[Entry]:
    with jigdo_file.opened(name) as file:
        if not has_header(file):
            raise FormatError("is not a template file", source=name)
        offset, desc = read_desc(file, name)
    entries = list(read_entries(desc, source=name, offset=offset))
    if not entries or not isinstance(entries[-1], ImageInfo):
        raise FormatError("the entries do not end with the image's own", source=name, offset=offset)
    return entries


def _missing(image: str, entries: list[Entry]) -> set[Checksum]:
    """Return the parts that are neither in the image, if it exists, nor in its .tmp."""
    if image != jigdo_file.STDIN:
        # somebody may name the unfinished image itself; jigdo-file takes it for a finished one
        found = _unfinished(image, entries) if image.endswith(".tmp") else None
        if found is None and os.path.exists(image):
            return set()
        entries = found or _unfinished_beside(f"{image}.tmp", entries) or entries
    return {entry.checksum for entry in entries if isinstance(entry, MatchedFile) and not entry.written}


def _unfinished_beside(tmp: str, entries: list[Entry]) -> list[Entry] | None:
    found = _unfinished(tmp, entries)
    if found is None and os.path.lexists(tmp):
        jigdo_file.warn(f"{tmp}: is no unfinished copy of this image, so it is not used")
    return found


def _unfinished(tmp: str, entries: list[Entry]) -> list[Entry] | None:
    """Return the entries of an image under construction, if it is one and belongs to these entries."""
    if not os.path.isfile(tmp):
        return None
    try:
        with jigdo_file.opened(tmp) as file:
            offset, desc = read_desc(file, tmp)
        found = list(read_entries(desc, source=tmp, offset=offset))
    except FormatError:
        return None
    begins_at = offset - (DESC_OVERHEAD - 6)
    is_same = begins_at == entries[-1].length and list(_unwritten(found)) == list(_unwritten(entries))
    return found if is_same else None


def _unwritten(entries: list[Entry]) -> Iterator[Entry]:
    for entry in entries:
        yield entry._replace(written=False) if isinstance(entry, MatchedFile) else entry
